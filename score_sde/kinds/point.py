"""Points: vectors of numbers, of which a picture shows the first two."""

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from score_sde.kinds.base import Event, Kind
from score_sde.kinds.palette import class_colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES: dict[str, dict[str, Any]] = {
    "truth": {"color": "0.6", "markersize": 7, "label": "data"},
    "other": {"color": "C3", "markersize": 5, "label": "decoded"},
    "background": {"s": 2, "c": "0.85", "linewidths": 0},
}
"""Styles of points by their role."""


class Point(Kind):
    """A set of points is one picture, a scatter of all of them."""

    name = "point"
    layout = "plane"
    channels = False

    def fits(self, shape: Event) -> bool:
        return len(shape) == 1

    def shown(self, x: Tensor, lead: int = 1) -> Tensor | None:
        return x.narrow(lead, 0, 2) if x.ndim - lead == 1 and x.shape[lead] > 1 else None

    def scale(self, shown: Tensor, levels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The smallest and the largest value of each coordinate."""
        return shown.amin(0).numpy(), shown.amax(0).numpy()

    def draw(
        self, axes: "Axes", shown: Tensor, role: str = "items", labels: Tensor | None = None, **style: Any
    ) -> None:
        x, style = shown.numpy(), STYLES.get(role, {}) | style
        if role == "truth":
            axes.plot(*x.T, "o", **style)
        elif role == "other":
            axes.plot(*x.T, "x", **style)
        elif role == "background":
            axes.scatter(*x.T, **style)
        elif role == "path":
            axes.plot(*x.T, ".-", linewidth=1, **style)
            axes.plot(*x[[0, -1]].T, "o", markersize=7, **style)
        elif role == "guesses":
            _guesses(axes, x, style)
        else:
            color: dict[str, Any] = {} if labels is None else {"c": class_colors(labels)}
            size: dict[str, Any] = {"s": 60 / len(x) ** 0.4, "linewidths": 0}
            axes.scatter(*x.T, **size | color | style)

    def examples(self, shape: Event) -> int:
        """All of them, as a rule."""
        return 1000

    def planar(self, shape: Event) -> bool:
        return shape == (2,)


def _guesses(axes: "Axes", x: np.ndarray, style: dict[str, Any]) -> None:
    axes.plot(*x.T, "o", markersize=4, **style)
    # Where one coordinate is known, the points are those of a line.
    for line, at, other in ((axes.axvline, 0, 1), (axes.axhline, 1, 0)):
        for point in x[np.isnan(x[:, other]) & ~np.isnan(x[:, at])]:
            line(point[at], linewidth=0.8, **style)
