// Draws one row of Grafana's dashboard, in a browser, with Grafana's own components:
// `draw(board, answers, row, width)` resolves to the titles of the panels without data.
//
// Grafana's panels themselves are not published, only what they are made of. So this
// file holds the little that a panel adds: from answers to data frames, the defaults of
// a time series, and the cells of a heatmap (without its color scale).

import "@fontsource/inter/latin-400.css";
import "@fontsource/inter/latin-500.css";
import {
  applyFieldOverrides, createTheme, dateTime, EventBusSrv, FieldType, fieldMatchers, formattedValueToString,
  getDisplayValueAlignmentFactors, getFieldDisplayValues, getValueFormat, renderLegendFormat, standardTransformers,
  standardTransformersRegistry, transformDataFrame,
} from "@grafana/data";
import {
  BigValue, GlobalStyles, PanelChrome, PanelContextProvider, ThemeContext, TimeSeries, UPlotChart, UPlotConfigBuilder,
  VizRepeater,
} from "@grafana/ui";
import { interpolateOranges } from "d3-scale-chromatic";
import { set } from "lodash";
import { createRoot } from "react-dom/client";
import { lastValueFrom } from "rxjs";
import "uplot/dist/uPlot.min.css";

// Grafana's grid: 24 columns, rows of 30 pixels, 8 between them.
const COLUMNS = 24, ROW_PX = 30, GAP_PX = 8;
const theme = createTheme({ colors: { mode: "light" } });
const TIME_ZONE = "utc";
// What Grafana's panel takes where the board says nothing.
const LINES = {
  drawStyle: "line", lineInterpolation: "linear", lineWidth: 1, fillOpacity: 0, gradientMode: "none", showPoints: "auto",
  pointSize: 5, spanNulls: false, stacking: { mode: "none", group: "A" }, axisPlacement: "auto",
  thresholdsStyle: { mode: "off" }, hideFrom: { legend: false, tooltip: false, viz: false },
};

// The board has one kind of transformation.
standardTransformersRegistry.setInit(() => [standardTransformers.renameByRegexTransformer].map((transformation) => (
  { id: transformation.id, name: transformation.name, transformation })));

/** The series that answered a panel's queries, named as Grafana's data source for Prometheus does, with the panel's field configuration. */
async function frames(panel, asked, step) {
  const answered = panel.targets.flatMap((target, at) => asked[at].map(({ metric, values }) => {
    const { __name__, ...labels } = metric;
    const plain = `{${Object.entries(labels).map(([name, value]) => `${name}="${value}"`).join(", ")}}`;
    const legend = target.legendFormat ? renderLegendFormat(target.legendFormat, labels) : plain;
    const value = values.map(([, text]) => (text === "NaN" ? null : Number(text.replace("Inf", "Infinity"))));
    return {
      refId: target.refId,
      length: values.length,
      fields: [
        { name: "Time", type: FieldType.time, values: values.map(([at]) => at * 1000), config: { interval: step * 1000 } },
        { name: "Value", type: FieldType.number, values: value, labels, config: { displayNameFromDS: legend } },
      ],
    };
  }));
  const made = await lastValueFrom(transformDataFrame(panel.transformations ?? [], answered));
  for (const frame of made) {
    const config = frame.fields[1].config;
    Object.assign(config, { ...structuredClone(panel.fieldConfig.defaults), ...config });
    if (panel.type === "timeseries") {
      config.color ??= { mode: "palette-classic" };
      config.custom = { ...LINES, ...config.custom };
    }
    for (const { matcher, properties } of panel.fieldConfig.overrides) {
      if (fieldMatchers.get(matcher.id).get(matcher.options)(frame.fields[1], frame, made)) {
        properties.forEach(({ id, value }) => set(config, id, value));
      }
    }
  }
  return applyFieldOverrides({
    data: made, fieldConfig: { defaults: {}, overrides: [] }, theme, timeZone: TIME_ZONE, replaceVariables: (text) => text,
  });
}

function Stat({ panel, data, width, height }) {
  const { options } = panel;
  const values = () => getFieldDisplayValues({
    fieldConfig: panel.fieldConfig, reduceOptions: options.reduceOptions, replaceVariables: (text) => text, theme, data,
    sparkline: options.graphMode !== "none", timeZone: TIME_ZONE,
  });
  return <VizRepeater getValues={values} source={data} width={width} height={height} itemSpacing={3} autoGrid
    getAlignmentFactors={getDisplayValueAlignmentFactors} renderCounter={0} orientation={options.orientation}
    renderValue={({ value, width, height, alignmentFactors, count }) => <BigValue value={value.display} count={count}
      sparkline={value.sparkline} width={width} height={height} alignmentFactors={alignmentFactors} theme={theme}
      colorMode={options.colorMode} graphMode={options.graphMode} justifyMode={options.justifyMode}
      textMode={options.textMode} text={options.text} disableWideLayout={!options.wideLayout} />} />;
}

const Series = ({ panel, data, range, width, height }) => <TimeSeries frames={data} timeRange={range} timeZone={TIME_ZONE}
  width={width} height={height} legend={panel.options.legend} theme={theme} />;

/** Cells of cumulative buckets: how much each gained beyond the one below it, darker the more. */
function Heatmap({ panel, data, range, step, width, height }) {
  const rows = data.map((frame) => ({ bound: Number(frame.fields[1].labels.le.replace("Inf", "Infinity")), frame }))
    .sort((one, other) => one.bound - other.bound)
    .map(({ bound, frame }) => ({ bound, at: new Map(frame.fields[0].values.map((t, i) => [t, frame.fields[1].values[i]])) }));
  const times = [...rows[0].at.keys()];
  const cells = rows.map((row, i) => times.map((t) => row.at.get(t) - (i ? rows[i - 1].at.get(t) : 0)));
  const most = Math.max(...cells.flat());
  const format = getValueFormat(panel.options.yAxis.unit);
  const { steps, exponent } = panel.options.color;
  const color = (value) => interpolateOranges(Math.round((value / most) ** exponent * (steps - 1)) / (steps - 1));
  const config = new UPlotConfigBuilder(TIME_ZONE);
  config.addScale({ scaleKey: "x", isTime: true, orientation: 0, direction: 1, range: [range.from.valueOf(), range.to.valueOf()] });
  config.addScale({ scaleKey: "y", isTime: false, orientation: 1, direction: 1, range: [0, rows.length] });
  config.addAxis({ scaleKey: "x", isTime: true, placement: "bottom", theme, timeZone: TIME_ZONE });
  config.addAxis({
    scaleKey: "y", placement: "left", theme, splits: rows.map((_, i) => rows.length - i).filter((_, i) => i % 2 === 0).reverse(),
    values: (_, splits) => splits.map((i) => (rows[i - 1].bound === Infinity ? "+Inf" : formattedValueToString(format(rows[i - 1].bound)))),
  });
  config.addHook("draw", (plot) => cells.forEach((row, y) => row.forEach((value, x) => {
    if (value > 0) {
      const [left, right] = [times[x] - step * 1000, times[x]].map((t) => plot.valToPos(t, "x", true));
      const [top, bottom] = [y + 1, y].map((level) => plot.valToPos(level, "y", true));
      plot.ctx.fillStyle = color(value);
      plot.ctx.fillRect(left, top, right - left, bottom - top);
    }
  })));
  config.addSeries({ scaleKey: "y", theme, pathBuilder: () => null, pointsBuilder: () => null, show: true });
  return <UPlotChart width={width} height={height} config={config} data={[times, times.map(() => null)]} />;
}

const DRAWN = { stat: Stat, timeseries: Series, heatmap: Heatmap };

function Panel({ panel, data, range, step, width, height }) {
  const Drawn = DRAWN[panel.type];
  const { noValue } = panel.fieldConfig.defaults;
  const empty = { height: "100%", display: "flex", alignItems: "center", justifyContent: "center", color: theme.colors.text.secondary };
  return <PanelChrome title={panel.title} description={panel.description} width={width} height={height}>
    {(width, height) => (data.length || panel.type === "stat"
      ? <Drawn panel={panel} data={data} range={range} step={step} width={width} height={height} />
      : <div style={empty}>{noValue ?? "No data"}</div>)}
  </PanelChrome>;
}

function Board({ row, panels, data, answers, width }) {
  const column = (width + GAP_PX) / COLUMNS;
  const range = { from: dateTime(answers.from * 1000), to: dateTime(answers.to * 1000) };
  range.raw = range;
  const top = row.gridPos.y;
  const bottom = Math.max(...panels.map(({ gridPos }) => gridPos.y + gridPos.h)) - top;
  const px = (rows) => rows * (ROW_PX + GAP_PX) - GAP_PX;
  return <ThemeContext.Provider value={theme}>
    <GlobalStyles />
    <PanelContextProvider value={{ eventsScope: "board", eventBus: new EventBusSrv() }}>
      <div id="board" style={{ position: "relative", width, height: px(bottom), background: theme.colors.background.canvas }}>
        <h4 style={{ margin: 0, padding: "4px 8px" }}>{row.title}</h4>
        {panels.map((panel) => {
          const { x, y, w, h } = panel.gridPos;
          return <div key={panel.id} style={{ position: "absolute", left: x * column, top: px(y - top) + GAP_PX }}>
            <Panel panel={panel} data={data[panel.id]} range={range} step={answers.step}
              width={w * column - GAP_PX} height={px(h)} />
          </div>;
        })}
      </div>
    </PanelContextProvider>
  </ThemeContext.Provider>;
}

window.draw = async (board, answers, row, width) => {
  const at = board.panels.findIndex(({ id }) => id === row);
  const next = board.panels.findIndex(({ type }, i) => i > at && type === "row");
  const panels = board.panels.slice(at + 1, next < 0 ? undefined : next);
  const data = {};
  for (const panel of panels) {
    data[panel.id] = await frames(panel, answers.panels[panel.id], answers.step);
  }
  createRoot(document.body).render(<Board row={board.panels[at]} panels={panels} data={data} answers={answers} width={width} />);
  return panels.filter((panel) => !data[panel.id].length).map((panel) => panel.title);
};
