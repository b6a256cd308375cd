"""Panels of Grafana, in the few shapes that the board is made of."""

import warnings

warnings.simplefilter("ignore", DeprecationWarning)  # the SDK prefers a schema that few Grafanas read yet

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries  # noqa: E402
from grafana_foundation_sdk.models.common import (  # noqa: E402
    DataSourceRef, LegendDisplayMode, LegendPlacement, ScaleDistribution, SortOrder, StackingMode, TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import Threshold, ThresholdsMode  # noqa: E402
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode  # noqa: E402
from grafana_foundation_sdk.models.prometheus import PromQueryFormat  # noqa: E402

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
# What every query looks at.
ON = 'job=~"$job", instance=~"$instance"'
WIDTH = 24


def lines(title: str, description: str, unit: str, *queries: tuple[str, str], span: int = 8, stacked: bool = False):
    """Figures over time. A query is an expression and the legend of its series."""
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    tooltip = common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
    panel = timeseries.Panel().legend(legend.show_legend(True)).tooltip(tooltip).fill_opacity(10).min(0)
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    for place, (expr, name) in enumerate(queries):
        panel.with_target(target(place, expr).legend_format(name).range())
    return dressed(panel, title, description, unit, span, 8)


def figure(title: str, description: str, unit: str, expr: str, legend: str = "", *, span: int = 6,
           steps: list[tuple[float | None, str]] = [(None, "text")]):
    """What is so now."""
    thresholds = dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE)
    thresholds.steps([Threshold(value=value, color=color) for value, color in steps])
    panel = stat.Panel().thresholds(thresholds).with_target(target(0, expr).legend_format(legend).instant())
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    return dressed(panel, title, description, unit, span, 5)


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
