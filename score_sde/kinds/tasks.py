"""Tasks by name: what is measured of an item, as a linear operator."""

from collections.abc import Callable
from typing import Any

from sde.inverse.operators import Blur, CompressedSensing, Grayscale, LinearOperator, SuperResolution

TaskOf = Callable[[tuple[int, ...], Any], LinearOperator]
"""(shape, value) -> an operator on items (B, *shape)."""


def colorize(shape: tuple[int, ...], value: None) -> LinearOperator:
    """The gray image. Raises ValueError for items of one channel."""
    if shape[0] == 1:
        raise ValueError(f"items of shape {shape} have one channel, so that there is no color to restore")
    return Grayscale() if shape[0] == 3 else Grayscale([1 / shape[0]] * shape[0])


TASKS: dict[str, TaskOf] = {
    "superres": lambda shape, value: SuperResolution(value, len(shape) - 1),
    "deblur": lambda shape, value: Blur.gaussian(value, len(shape) - 1),
    "colorize": colorize,
    "sensing": CompressedSensing,
}
"""Those of items with channels and a space; random projections are of any."""
