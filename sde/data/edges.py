"""Edges: where items change fastest, by Sobel's gradient."""

import torch
from torch import Tensor

THRESHOLD = 0.25
"""Share of an item's steepest gradient above which an entry is an edge."""


def sobel(x: Tensor) -> Tensor:
    """The length of the gradient at each entry of items x (B, channels, *space), (B, 1, *space), that of the channels'
    mean: along each axis of space the difference of the two neighbors, weighted 1, 2, 1 along each other axis (Sobel
    and Feldman 1968). Items go on beyond their borders as they are there. Raises ValueError for items without axes of
    space."""
    axes = range(2, x.ndim)
    if not axes:
        raise ValueError(f"items of shape {tuple(x.shape[1:])} have no axes of space, and so no edges")
    gray = (x if x.is_floating_point() else x.float()).mean(1, keepdim=True)
    squares = torch.zeros_like(gray)
    for along in axes:
        slope = gray
        for axis in axes:
            before, here, after = _around(slope, axis)
            slope = after - before if axis == along else before + 2 * here + after
        squares = squares + slope.square()
    return squares.sqrt()


def _around(x: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """The entries before, at and after each one along an axis, of which the first and the last are repeated."""
    size = x.shape[axis]
    wide = torch.cat([x.narrow(axis, 0, 1), x, x.narrow(axis, size - 1, 1)], axis)
    return wide.narrow(axis, 0, size), x, wide.narrow(axis, 2, size)


def edges(x: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """1 where ``sobel`` of items x (B, channels, *space) is above ``threshold`` times the item's largest, else 0; (B,
    1, *space). An item without any change has no edges."""
    slope = sobel(x)
    steepest = slope.flatten(1).amax(1).view(-1, *[1] * (slope.ndim - 1))
    return (slope > threshold * steepest).to(slope.dtype)
