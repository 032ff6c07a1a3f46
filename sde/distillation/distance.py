"""Distances of what a student says and what it is told, per item."""

from collections.abc import Callable

import torch
from torch import Tensor

from sde.data.sizes import item_means


def mean_square(difference: Tensor, sizes: Tensor | None = None) -> Tensor:
    """|d|^2 per dimension (B,) of d (B, *event), in float32 or what is wider; of padded items over what is real."""
    wide = difference if difference.dtype == torch.float64 else difference.float()
    return item_means(wide.square(), sizes)


def pseudo_huber(difference: Tensor, c: float, sizes: Tensor | None = None) -> Tensor:
    """sqrt(m + c^2) - c of m = |d|^2 per dimension, (B,): quadratic below c, linear above (Song and Dhariwal 2024, eq.
    8, divided by sqrt(dimensions), so that their c = 0.00054 sqrt(dimensions) is 0.00054 here); c = 0 is the root.

    It is written as m / (sqrt(m + c^2) + c), which keeps its digits below c."""
    m = mean_square(difference, sizes)
    return m / ((m + c * c).clamp(min=torch.finfo(m.dtype).tiny).sqrt() + c)


DISTANCES: dict[str, Callable[[Tensor, float, Tensor | None], Tensor]] = {
    "mean_square": lambda difference, c, sizes: mean_square(difference, sizes),
    "pseudo_huber": pseudo_huber,
}
"""Distances by name, as functions of the difference (B, *event), pseudo_huber's c, and the sizes of padded items."""
