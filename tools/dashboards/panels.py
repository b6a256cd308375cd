"""Panels of Grafana, in the few shapes that the board is made of."""

import warnings

warnings.simplefilter("ignore", DeprecationWarning)  # the SDK prefers a schema that few Grafanas read yet

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries  # noqa: E402
from grafana_foundation_sdk.models.common import (  # noqa: E402
    BigValueColorMode, BigValueTextMode, DataSourceRef, GraphThresholdsStyleMode, LegendDisplayMode, LegendPlacement,
    ScaleDistribution, SortOrder, StackingMode, TooltipDisplayMode, VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (  # noqa: E402
    DataTransformerConfig, DynamicConfigValue, Threshold, ThresholdsMode,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode  # noqa: E402
from grafana_foundation_sdk.models.prometheus import PromQueryFormat  # noqa: E402

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
JOB = 'job=~"$job"'
# What every query looks at.
ON = f'{JOB}, instance=~"$instance"'
WIDTH = 24
METHOD_LEGEND = "{{grpc_service}}/{{grpc_method}}"


def lines(title: str, description: str, unit: str, *queries: tuple[str, str], span: int = 8, stacked: bool = False,
          rare: bool = False, marks: list[tuple[float, str]] = [], colors: dict[str, str] = {}, no_value: str = ""):
    """Figures over time. A query is an expression and the legend of its series. `marks` are
    dashed lines at a value, `colors` those of series by name; what is `rare` stays at the
    bottom where it never happened, instead of on an axis to 100."""
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    tooltip = common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
    panel = timeseries.Panel().legend(legend.show_legend(True)).tooltip(tooltip).min(0)
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(25)
    if rare:
        panel.axis_soft_max(0.1)
    if marks:
        panel.thresholds(steps([(None, "transparent"), *marks]))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    if no_value:
        panel.no_value(no_value)
    for name, color in colors.items():
        panel.override_by_name(name, [fixed(color)])
    if any(name.endswith("limit") for _, name in queries):
        dash = DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 8]})
        panel.override_by_regexp("/limit$/", [dash, fixed("red")])
    if any(name.startswith(METHOD_LEGEND) for _, name in queries):
        # The whole name of a method of the API is too long for a legend.
        renamed = {"regex": r"user\.v1\.UserService/(.*)", "renamePattern": "$1"}
        panel.with_transformation(DataTransformerConfig(id_val="renameByRegex", options=renamed))
    for place, (expr, name) in enumerate(queries):
        panel.with_target(target(place, expr).legend_format(name).range())
    return dressed(panel, title, description, unit, span, 8)


def figure(title: str, description: str, unit: str, expr: str, *, span: int = 5, decimals: int | None = None,
           colors: list[tuple[float | None, str]] = [(None, "text")]):
    """What is so now."""
    panel = now(expr).thresholds(steps(colors))
    if decimals is not None:
        panel.decimals(decimals)
    return dressed(panel, title, description, unit, span, 5)


def names(title: str, description: str, expr: str, legend: str, *, span: int, colors: dict[str, str], no_value: str):
    """What there is now, by name, one below the other; `colors` of those that match."""
    panel = now(expr, legend).text_mode(BigValueTextMode.VALUE_AND_NAME).color_mode(BigValueColorMode.BACKGROUND)
    panel.orientation(VizOrientation.HORIZONTAL).text(common.VizTextDisplayOptions().title_size(14).value_size(14)).no_value(no_value)
    panel.thresholds(steps([(None, "green")]))
    for pattern, color in colors.items():
        panel.override_by_regexp(pattern, [fixed(color)])
    return dressed(panel, title, description, "short", span, 5)


def now(expr: str, legend: str = ""):
    panel = stat.Panel().with_target(target(0, expr).legend_format(legend).instant())
    return panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))


def steps(colors: list[tuple[float | None, str]]):
    thresholds = dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE)
    return thresholds.steps([Threshold(value=value, color=color) for value, color in colors])


def fixed(color: str) -> DynamicConfigValue:
    return DynamicConfigValue("color", {"mode": "fixed", "fixedColor": color})


def heat(title: str, description: str, unit: str, expr: str, *, span: int = 12):
    """How the buckets of a histogram fill over time."""
    colors = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64).exponent(0.5)
    axis = heatmap.YAxisConfig().unit(unit)
    panel = heatmap.Panel().calculate(False).color(colors).y_axis(axis).show_legend()
    panel.scale_distribution(common.ScaleDistributionConfig().type(ScaleDistribution.LINEAR))
    query = target(0, expr).legend_format("{{le}}").format(PromQueryFormat.HEATMAP).range()
    return dressed(panel.with_target(query), title, description, unit, span, 8)


def target(place: int, expr: str):
    return prometheus.Dataquery().ref_id(chr(ord("A") + place)).expr(expr).datasource(SOURCE)


def dressed(panel, title: str, description: str, unit: str, span: int, height: int):
    return panel.title(title).description(description).unit(unit).span(span).height(height).datasource(SOURCE)
