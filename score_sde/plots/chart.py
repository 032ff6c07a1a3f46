"""A chart: numbers of rows drawn on axes, as an SVG that fits a page of any color."""

from collections.abc import Sequence
from typing import Any, Protocol

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes

from score_sde.plots.pictures import figure_bytes

GREY = "#82878f"
"""Seen on white as well as on black."""
THEMED = ("text.color", "axes.labelcolor", "axes.edgecolor", "grid.color", "xtick.color", "ytick.color")


class Chart(Protocol):
    """A drawing of rows of numbers by their names, with a title."""

    @property
    def title(self) -> str:
        """The title above the axes."""
        ...

    def draw(self, axes: Axes, rows: Sequence[dict]) -> None:
        """Everything on the axes, their labels and a legend included."""
        ...


def chart_svg(chart: Chart, rows: Sequence[dict], size: tuple[float, float] = (4.7, 2.9), ink: str = GREY) -> bytes:
    """The file of a chart without a background, its text in the color ``ink``."""
    style: dict[Any, Any] = dict.fromkeys(THEMED, ink)
    style |= {"svg.fonttype": "none", "svg.hashsalt": chart.title, "font.size": 9.5}
    with plt.rc_context(style):
        figure, axes = plt.subplots(figsize=size, layout="constrained")
        chart.draw(axes, rows)
        empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        return figure_bytes(figure, "svg", transparent=True, metadata=empty)


def logarithmic(axes: Axes, name: str = "y", top: float | None = None) -> None:
    """Make an axis, by name, logarithmic where it has something above 0, with few ticks and plain numbers; it ends at
    ``top``, where that is given."""
    least = {"x": axes.dataLim.minposx, "y": axes.dataLim.minposy}[name]
    if not np.isfinite(least):
        return
    axes.set(**{f"{name}scale": "log"})
    axis = getattr(axes, f"{name}axis")
    if top is not None:
        axes.set(**{f"{name}lim": (None, top)})
    low, high = getattr(axes, f"get_{name}lim")()
    fine = ticker.LogLocator(subs=(1, 1.5, 2, 3, 5, 7))
    if sum(low <= tick <= high for tick in fine.tick_values(low, high)) < 3:
        axis.set_major_locator(ticker.MaxNLocator(5))
    elif high < 20 * low:
        axis.set_major_locator(fine)
    elif high < 1000 * low:
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(ticker.NullLocator())
