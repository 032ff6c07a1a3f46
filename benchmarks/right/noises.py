"""Noises: the random numbers of samples, which are the same wherever they are drawn."""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from benchmarks.sections import Check, Setting
from benchmarks.sides import Side, gap, on_both
from samplers import BrownianNoise, SeededNoise
from sde import VPSDE

ALLOWED = 1e-5
"""Of numbers of unit size."""


def drawn(side: Side, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Numbers of every kind for a batch, several draws of each."""
    x, sde = torch.empty(shape, device=side.device, dtype=side.dtype), VPSDE()
    seeded, paths = SeededNoise(range(len(x))), BrownianNoise(range(len(x)), sde)
    times = torch.tensor([1.0, 0.8, 0.3, 1e-3], dtype=torch.float64)
    return {
        "normal": torch.stack([seeded(x) for _ in range(3)]),
        "uniform": torch.stack([seeded.uniform(x) for _ in range(3)]),
        "normal, after uniform": seeded(x),
        "Brownian": torch.stack([paths.between(t, s)(x) for t, s in pairwise(times)]),
    }


def noises(setting: Setting) -> Iterator[Check]:
    """The numbers that samplers draw, from the same seeds: several draws of every kind, of odd sizes as well."""
    for shape in ((4, 3), (3, 3, 16, 16), *setting.of(((256, 3, 32, 32),), ())):
        found, wanted = on_both(setting, lambda side, shape=shape: drawn(side, shape))
        for kind, numbers in found.items():
            yield Check(kind, f"{tuple(shape)}", gap(numbers, wanted[kind]), ALLOWED)
