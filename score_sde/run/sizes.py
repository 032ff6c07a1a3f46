"""Sizes of samples: drawn by the law of the training items, which the run keeps, or as ``--sizes`` says."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from samplers.noise.seeded import SIZES, sample_seeds
from score_sde.run.folder import Run
from score_sde.run.inputs import read_numbers

Law = Sequence[Sequence[int]]
"""Pairs of a size and how many of the training items have it, rising (sde.data.sizes.law_of)."""


def drawn_sizes(law: Law, seeds: Sequence[int]) -> Tensor:
    """The sizes (n,) of samples with these seeds, by the inverse of the law's distribution function at a uniform number
    of each seed: a sample's size depends on its own seed alone."""
    values, counts = torch.tensor(law).unbind(1)
    u = [np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, SIZES)))).random() for seed in seeds]
    below = counts.cumsum(0)
    # The first size that so many items do not exceed.
    return values[torch.searchsorted(below, (torch.tensor(u, dtype=torch.float64) * below[-1]).long(), right=True)]


def sizes_of_samples(run: Run, count: int, seed: int, text: str | None = None) -> Tensor | None:
    """The sizes (count,) of a command's samples: ``text``, that of ``--sizes``, cycled, or drawn; None where all items
    are of one size. Raises ValueError for sizes that the model's items cannot have."""
    law = run.sizes
    if not law:
        if text:
            raise ValueError(f"--sizes={text}: the items of this run are all of one size; leave it out")
        return None
    if not text:
        return drawn_sizes(law, sample_seeds(seed, count))
    most = max(run.event_shape[1:] or run.event_shape)
    form = f"sizes from 1 to {most}, as in 5,8, or nothing"
    given = torch.tensor(read_numbers("--sizes", text, most + 1, form, first=1))
    return given[torch.arange(count) % len(given)]
