"""Intervals: the pairs of neighboring times between which discrete methods ask, and further random numbers."""

from collections.abc import Callable

import torch
from torch import Tensor

from sde.process.base import SDE
from sde.training.loss import BatchNoise, per_item

Grid = Callable[[SDE, int], Tensor]
"""Times (steps + 1,) of a process, float64 on the CPU, from t_max down to t_min, as a key of ``samplers.GRIDS``."""


def uniforms(draws: BatchNoise, number: int) -> Tensor:
    """Numbers (B,) uniform in [0, 1), float64 on the CPU, of the items' own; another ``number`` gives others."""
    return per_item(torch.rand, draws.seeds + 1 + number, ()).double()


def around(times: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The neighboring times (B,), later and earlier, of a grid (steps + 1,) between which each of t (B,) lies."""
    ascending = times.flip(0)
    upper = torch.searchsorted(ascending, t.contiguous(), right=True).clamp(1, len(times) - 1)
    return ascending[upper], ascending[upper - 1]


