"""Charts of a comparison: losses against costs, as SVG in the colors of its page."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from matplotlib.axes import Axes

from score_sde.config.schema import CHOICES_OF_SAMPLER
from score_sde.metrics.metric import Metric
from score_sde.plots.chart import chart_svg, logarithmic

INK = "#010203"
"""Stands for the color of the page's text."""

COLORS = ("#3b82d0", "#d0631a", "#2d9a5c", "#d64545", "#9a5fd0", "#16909c", "#a67c28", "#d14f9b", "#6d8a1f", "#82878f")
"""Seen on white as well as on black."""
MARKERS = "osD^vPX<>p"

FIRST = ("auto", "dpmpp", "unipc", "heun", "ddim", "ancestral", "pc", "ode")
"""Samplers that are compared most, and have colors of their own; of others two may share one."""

MAX_HEIGHT = 6
"""Times the smallest distance that a chart shows: one sampler with too few steps would make all others alike."""


@dataclass(frozen=True)
class Costs:
    """A chart of ``loss`` by ``cost``, keys of rows, with the words for both; ``front`` is true of rows on the Pareto
    front. The cost is multiplied by ``factor``. ``real`` is what real items have, where that is known;
    ``distance``: the loss has no upper limit."""

    title: str
    cost: str
    loss: str
    front: str
    across: str
    up: str
    factor: float = 1.0
    real: dict | None = None
    distance: bool = False

    def points(self, rows: Sequence[dict]) -> tuple[list[float], list[float]]:
        """Costs and losses of rows, by cost."""
        pairs = sorted((row[self.cost] * self.factor, row[self.loss]) for row in rows)
        return [cost for cost, _ in pairs], [loss for _, loss in pairs]

    def draw(self, axes: Axes, rows: Sequence[dict]) -> None:
        """A line per sampler, which looks the same in each chart, and the front."""
        several = any(row["run"] for row in rows)
        titles = sorted({row["title"] for row in rows})
        styles = {name: style_of(name, place if several else None) for place, name in enumerate(titles)}
        rows = [row for row in rows if row[self.loss] is not None]
        for name, style in styles.items():
            own = sorted((row for row in rows if row["title"] == name), key=lambda row: row[self.cost])
            errors = [row["stderr"] for row in own] if self.loss == "value" else None
            if own:
                axes.errorbar(*self.points(own), errors, **style, markersize=4.5, linewidth=1.1, elinewidth=0.8)
        _mark(axes, self, rows)
        if self.real is not None:
            axes.axhline(self.real["value"], color=INK, linewidth=1, linestyle=":", label="real items")
        off = beyond(self, rows)
        costs, losses = self.points([row for row in rows if row not in off])
        top = _top(rows) if off else None
        if min(costs) > 0:
            logarithmic(axes, "x")
        if min(losses) > 0:
            logarithmic(axes, "y", top)
        else:
            axes.set_ylim(top=top)
        if self.real is not None:
            # Within the axes, as a range that reaches below 0 has no place on a logarithmic one.
            bottom, top = axes.get_ylim()
            axes.axhspan(max(self.real["low"], bottom), min(self.real["high"], top), color=INK, alpha=0.1, linewidth=0)
            axes.set_ylim(bottom, top)
        axes.set(xlabel=self.across, ylabel=self.up)
        axes.grid(color=INK, alpha=0.15)
        axes.figure.legend(loc="outside lower center", ncols=4, fontsize="small", framealpha=0)


def style_of(name: str, place: int | None = None) -> dict[str, Any]:
    """Color, marker and label of a sampler, the same on every page, whatever others are on it; those of a ``place`` for
    one of several runs."""
    if place is None:
        place = [*dict.fromkeys((*FIRST, *CHOICES_OF_SAMPLER)), name].index(name)
    color, lap = place % len(COLORS), place // len(COLORS)
    marker = MARKERS[(color + 3 * lap) % len(MARKERS)]
    return {"color": COLORS[color], "marker": marker, "linestyle": ("-", "-.")[lap % 2], "label": name}


def charts(metric: Metric, real: dict, against: str) -> tuple[Costs, ...]:
    """Those of a comparison by a metric, beside it the mean of real items, ``"value"``, and the range of theirs,
    ``"low"`` to ``"high"``, to data that are ``against``, held-out ones."""
    name, up = capitalized(metric.title), f"{metric.title} to {against} data"
    more: dict[str, Any] = {"real": real, "distance": metric.limits[1] == math.inf and not metric.larger}
    return (
        Costs(f"{name} by network calls", "nfe", "value", "front_nfe", "network calls per sample", up, **more),
        Costs(f"{name} by time", "seconds", "value", "front_seconds", "milliseconds per sample", up, 1000, **more),
        Costs("Error by network calls", "nfe", "error", "front_error", "network calls per sample",
              "error to the flow, in std of the data"),
    )  # fmt: skip


def capitalized(text: str) -> str:
    """With a capital first letter, the others as they are."""
    return text[:1].upper() + text[1:]


def beyond(chart: Costs, rows: Sequence[dict]) -> list[dict]:
    """The rows that are off the chart, where it is one of distances."""
    return [row for row in rows if chart.distance and row["value"] > _top(rows)]


def _top(rows: Sequence[dict]) -> float:
    values = [row["value"] for row in rows]
    # Unbiased estimates of small distances may be below 0.
    return MAX_HEIGHT * (min(values) if min(values) > 0 else median(map(abs, values)))


def inline_svg(chart: Costs, rows: Sequence[dict]) -> str:
    """A chart as an <svg> for a page, "" where no row has the loss."""
    if all(row[chart.loss] is None for row in rows):
        return ""
    svg = chart_svg(chart, rows, (4.7, 3.8), INK).decode()
    return _inline(svg, f"{chart.title}, a line per sampler; the table has the numbers")


def _mark(axes: Axes, chart: Costs, rows: Sequence[dict]) -> None:
    """A line along the front, and rings around its points and the recommended one."""
    front = chart.points([row for row in rows if row[chart.front]])
    ring: dict[str, Any] = {"linestyle": "", "marker": "o", "markerfacecolor": "none", "markeredgecolor": INK}
    axes.plot(*front, drawstyle="steps-post", color=INK, linewidth=0.8, linestyle="--", zorder=1)
    axes.plot(*front, **ring, markersize=9, markeredgewidth=0.9, label="front")
    chosen = [row for row in rows if row["recommended"]]
    if chosen:
        axes.plot(*chart.points(chosen), **ring, markersize=14, markeredgewidth=2, label="recommended")


def _inline(svg: str, text: str) -> str:
    """The <svg> element of a file, less what would be on a page twice."""
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg[svg.index("<svg") :])
    svg = re.sub(r'^<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg \1 role="img" aria-label="{text}">', svg, count=1)
    return svg.replace(INK, "currentColor")
