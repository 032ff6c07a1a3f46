"""Charts of a comparison: losses against costs, as SVG in the colours of its page."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import matplotlib.pyplot as plt
from matplotlib import ticker
from matplotlib.axes import Axes

from score_sde.metrics.metric import Metric
from score_sde.plots.pictures import figure_bytes

INK = "#010203"
"""Stands for the colour of the page's text."""

COLORS = ("#3b82d0", "#d0631a", "#2d9a5c", "#d64545", "#9a5fd0", "#16909c", "#a67c28", "#d14f9b", "#6d8a1f", "#82878f")
"""Seen on white as well as on black."""
MARKERS = "osD^vPX<>p"

TALL = 6
"""Times the smallest distance that a chart shows: one sampler with too few steps would make all others alike."""


@dataclass(frozen=True)
class Chart:
    """``loss`` by ``cost``, keys of rows, with the words for both; ``front`` is true of rows on the Pareto front. The
    cost is multiplied by ``factor``. ``training`` is what training items have, where that is known; ``distance``: the
    loss has no upper limit."""

    title: str
    cost: str
    loss: str
    front: str
    across: str
    up: str
    factor: float = 1.0
    training: float | None = None
    distance: bool = False

    def points(self, rows: Sequence[dict]) -> tuple[list[float], list[float]]:
        """Costs and losses of rows, by cost."""
        pairs = sorted((row[self.cost] * self.factor, row[self.loss]) for row in rows)
        return [cost for cost, _ in pairs], [loss for _, loss in pairs]


def charts(metric: Metric, training: float) -> tuple[Chart, ...]:
    """Those of a comparison by a metric, that of training items beside it."""
    name, up = capitalized(metric.title), f"{metric.title} to held-out data"
    more = {"training": training, "distance": metric.limits[1] == math.inf and not metric.larger}
    return (
        Chart(f"{name} by network calls", "calls", "value", "front_calls", "network calls a sample", up, **more),
        Chart(f"{name} by time", "seconds", "value", "front_seconds", "milliseconds a sample", up, 1000, **more),
        Chart("Error by network calls", "calls", "error", "front_error", "network calls a sample",
              "error to the flow, in std of the data"),
    )  # fmt: skip


def capitalized(text: str) -> str:
    """With a capital first letter, the others as they are."""
    return text[:1].upper() + text[1:]


def beyond(chart: Chart, rows: Sequence[dict]) -> list[dict]:
    """The rows that are off the chart, where it is one of distances."""
    return [row for row in rows if chart.distance and row["value"] > _top(rows)]


def _top(rows: Sequence[dict]) -> float:
    values = [row["value"] for row in rows]
    # Unbiased estimates of small distances may be below 0.
    return TALL * (min(values) if min(values) > 0 else median(map(abs, values)))


def chart_svg(chart: Chart, rows: Sequence[dict]) -> str:
    """A chart as an <svg> for a page, "" where no row has the loss. A sampler looks the same in each."""
    styles = {
        name: {"color": COLORS[i % len(COLORS)], "marker": MARKERS[i % len(MARKERS)], "label": name}
        for i, name in enumerate(sorted({row["sampler"] for row in rows}))
    }
    rows = [row for row in rows if row[chart.loss] is not None]
    if not rows:
        return ""
    themed = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    with plt.rc_context({**themed, "svg.fonttype": "none", "svg.hashsalt": chart.title, "font.size": 9.5}):
        figure, axes = plt.subplots(figsize=(4.7, 3.8), layout="constrained")
        for name, style in styles.items():
            own = sorted((row for row in rows if row["sampler"] == name), key=lambda row: row[chart.cost])
            errors = [row["stderr"] for row in own] if chart.loss == "value" else None
            if own:
                axes.errorbar(*chart.points(own), errors, **style, markersize=4.5, linewidth=1.1, elinewidth=0.8)
        _mark(axes, chart, rows)
        if chart.training is not None:
            axes.axhline(chart.training, color=INK, linewidth=1, linestyle=":", label="training items")
        off = beyond(chart, rows)
        for name, values in zip("xy", chart.points([row for row in rows if row not in off]), strict=True):
            _logarithmic(axes, name, values)
        if off:
            axes.set_ylim(top=_top(rows))
        axes.set(xlabel=chart.across, ylabel=chart.up)
        axes.grid(color=INK, alpha=0.15)
        figure.legend(loc="outside lower center", ncols=4, fontsize="small", framealpha=0)
        empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        svg = figure_bytes(figure, "svg", transparent=True, metadata=empty).decode()
    return _inline(svg, f"{chart.title}, a line a sampler; the table has the numbers")


def _mark(axes: Axes, chart: Chart, rows: Sequence[dict]) -> None:
    """A line along the front, and rings around its points and the recommended one."""
    front = chart.points([row for row in rows if row[chart.front]])
    ring = {"linestyle": "", "marker": "o", "markerfacecolor": "none", "markeredgecolor": INK}
    axes.plot(*front, drawstyle="steps-post", color=INK, linewidth=0.8, linestyle="--", zorder=1)
    axes.plot(*front, **ring, markersize=9, markeredgewidth=0.9, label="front")
    chosen = [row for row in rows if row["recommended"]]
    if chosen:
        axes.plot(*chart.points(chosen), **ring, markersize=14, markeredgewidth=2, label="recommended")


def _logarithmic(axes: Axes, name: str, values: Sequence[float]) -> None:
    if min(values) <= 0:
        return
    axes.set(**{f"{name}scale": "log"})
    axis = getattr(axes, f"{name}axis")
    ratio = max(values) / min(values)
    if ratio < 300:
        axis.set_major_locator(ticker.LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if ratio < 15 else (1, 2, 5)))
        axis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(ticker.NullLocator())


def _inline(svg: str, text: str) -> str:
    """The <svg> element of a file, less what would be on a page twice."""
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg[svg.index("<svg") :])
    svg = re.sub(r'^<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg \1 role="img" aria-label="{text}">', svg, count=1)
    return svg.replace(INK, "currentColor")
