"""Noise that belongs to a sample, not to a batch."""

from collections.abc import Iterable, Sequence
from numbers import Integral

import numpy as np
import torch
from torch import Tensor


class SeededNoise:
    """Standard normal noise with one counter-based generator (Philox) a sample.

    Row i of every draw depends on ``seeds[i]`` and on the number of draws before it, and on nothing else: not on the
    batch, the device or the number of processes. Numbers are drawn on the CPU in float32 and moved to the device of x.
    """

    def __init__(self, seeds: Iterable[int | np.random.SeedSequence]) -> None:
        self.generators = [np.random.Generator(np.random.Philox(seed)) for seed in seeds]

    def __call__(self, x: Tensor) -> Tensor:
        """Noise in the shape, dtype and device of x, whose rows are the samples."""
        if len(x) != len(self.generators):
            raise ValueError(f"SeededNoise has {len(self.generators)} seeds, x has {len(x)} rows: give one seed a row")
        draws = np.empty(x.shape, np.float32)
        for generator, row in zip(self.generators, draws, strict=True):
            generator.standard_normal(dtype=np.float32, out=row)
        return torch.from_numpy(draws).to(x.device, x.dtype, non_blocking=True)


def sample_seeds(seed: int | Sequence[int], count: int, first: int = 0) -> list[int]:
    """The seeds of ``count`` samples of a run from number ``first``: distinct over all runs (seed) and samples; or
    those given, one a sample, such as the ``seeds`` of an earlier run."""
    if isinstance(seed, Sequence):
        if len(seed) != count:
            raise ValueError(f"seed has {len(seed)} seeds, {count} samples are asked for: give one a sample")
        if not all(isinstance(s, Integral) and 0 <= s < 2**63 for s in seed):
            raise ValueError(f"seed = {seed}: needs integers from 0 to {2**63 - 1}")
        return list(seed)
    if not isinstance(seed, Integral) or not 0 <= seed < 2**31:
        raise ValueError(f"seed = {seed}: needs an integer from 0 to {2**31 - 1}")
    return [(seed << 32) + index for index in range(first, first + count)]


PROBES, DEQUANTISATION, MEASUREMENT, BOUNDS = 1, 2, 4, 5
"""What items draw random numbers for: by the same seed each purpose has its own."""


def item_seeds(seed: int, purpose: int, count: int, first: int = 0, draw: int = 0) -> list[np.random.SeedSequence]:
    """The seeds of ``count`` items from number ``first``, apart from those of samples. An item's depends on seed,
    purpose, draw and its number alone."""
    return [np.random.SeedSequence((seed, item, purpose, *[draw] * (draw > 0))) for item in range(first, first + count)]
