"""Euclidean distances between items, a block of rows at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor

NUMBERS_AT_ONCE = 2**23


def blocks(x: Tensor, y: Tensor) -> Iterator[slice]:
    """Rows of x so few that a number for each of them and each row of y takes little memory."""
    size = max(1, NUMBERS_AT_ONCE // len(y))
    return (slice(start, start + size) for start in range(0, len(x), size))


def distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j| (n, m) of x (n, d) and y (m, d)."""
    # Products of large numbers lose the digits of small distances.
    center = y.mean(0)
    return torch.cdist(x - center, y - center)


def nearest(x: Tensor, y: Tensor) -> Tensor:
    """The distance (n,) of each x (n, d) to the nearest y (m, d)."""
    return torch.cat([distances(x[rows], y).amin(1) for rows in blocks(x, y)])


def radii(x: Tensor, k: int) -> Tensor:
    """The distance (n,) of each x (n, d) to the k-th nearest other one. Raises ValueError unless there are so many."""
    if not 1 <= k < len(x):
        raise ValueError(f"k = {k} of {len(x)} items: needs from 1 to {len(x) - 1} neighbors")
    # The item itself is among the k + 1 nearest.
    return torch.cat([distances(x[rows], x).topk(k + 1, 1, largest=False).values[:, -1] for rows in blocks(x, x)])
