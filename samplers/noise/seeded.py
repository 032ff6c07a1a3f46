"""Seeded noise, which belongs to a sample, not to a batch, and the ids of all streams of random numbers."""

from collections.abc import Iterable, Sequence
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from samplers.host import as_python
from samplers.noise.draws import Draws
from samplers.noise.laws import NORMAL, UNIFORM
from samplers.noise.philox import Philox

# Streams. Random numbers for different purposes are independent under one seed. Samples take (seed << 32) + number
# (sample_seeds); other purposes, each of which is named here, take keys beside those. None of these values may change.

PROBES = 1
"""Purpose of item_seeds: the probes of a divergence."""

DEQUANTIZATION = 2
"""Purpose of item_seeds: where in its cell a quantized value lies. Number 3 stands in START_OFFSET."""

MEASUREMENT = 4
"""Purpose of item_seeds: the noise of a measurement that is simulated."""

SIZES = 6
"""Key beside the seed of a sample: the size of a sample that is padded."""

BOUNDS = 5
"""Purpose of item_seeds: times and noise of a variational bound."""

CLASSES = 7
"""Purpose of item_seeds: which class a sample is of."""

POSTERIORS = 8
"""Purpose of item_seeds: where in its posterior the latent of an item lies."""

CONDITIONS = 9
"""Purpose of item_seeds: the noise on the condition of a sample."""

START_OFFSET = 3 << 29
"""Added to the seeds of samples: the noise from 0 to t_min, at which a likelihood report starts its check."""

PILOT_OFFSET = 1 << 31
"""Added to the seeds of samples: the starting points of the pilots of a plan."""

DRAW_OFFSET = 1 << 32
"""Added to the seed of the probes once for each dequantization after the first."""


class SeededNoise:
    """Random numbers with one counter-based generator (``Philox``) per sample.

    Row i of every draw depends on ``seeds[i]`` and on the number of draws before it, and on nothing else: not on the
    batch or the number of processes, and on the device to 1e-5 at most. A device draws its own numbers, several draws
    at once, from keys that are sent to it once; small ones, and those of a device without float64, come from the host,
    several in one copy (``samplers.noise.draws``). Normal numbers are float32 before they take the dtype of x. Uniform
    ones have a stream of their own, 2^128 numbers further, so that neither kind moves the other.

    ``sizes``, one per seed, says how many entries are real along every axis behind the channels (``samplers.padding``):
    the rest, padding, takes nothing from the stream and gets zeros. A sample has the same numbers however far it is
    padded.
    """

    def __init__(self, seeds: Iterable[int | np.random.SeedSequence], sizes: Sequence[int] | None = None) -> None:
        self.seeds = list(as_python(seeds))
        self.sizes = None if sizes is None else list(sizes)
        if self.sizes is not None and len(self.sizes) != len(self.seeds):
            raise ValueError(f"sizes has {len(self.sizes)} numbers for {len(self.seeds)} seeds: give one per seed")
        self.streams = Philox(self.seeds)
        self.normals, self.uniforms = (Draws(self.streams, law, self.sizes) for law in (NORMAL, UNIFORM))

    def __call__(self, x: Tensor) -> Tensor:
        """Normal numbers in the shape, dtype and device of x, whose rows are the samples."""
        self._check(x)
        return self.normals.next(x.shape, x.dtype, x.device)

    def uniform(self, x: Tensor) -> Tensor:
        """Numbers in [0, 1) in the shape and device of x, in float64: rare events need more digits than float32 has."""
        self._check(x)
        return self.uniforms.next(x.shape, torch.float64, x.device)

    def between(self, t: Tensor, s: Tensor) -> "SeededNoise":
        """The noise of a step: draws know nothing of steps."""
        return self

    def _check(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(f"x is {type(x).__name__}: needs a tensor, whose shape, dtype and device the noise takes")
        if len(x) != len(self.seeds):
            raise ValueError(f"SeededNoise has {len(self.seeds)} seeds, x has {len(x)} rows: give one seed per row")


def sample_seeds(seed: int | Sequence[int], count: int, first: int = 0) -> list[int]:
    """The seeds of ``count`` samples of a run from number ``first``: distinct over all runs (seed) and samples; or
    those given, one per sample, such as the ``seeds`` of an earlier run."""
    seed = as_python(seed)
    if isinstance(seed, Sequence):
        if len(seed) != count:
            raise ValueError(f"seed has {len(seed)} seeds, {count} samples are asked for: give one per sample")
        if not all(isinstance(s, Integral) and 0 <= s < 2**63 for s in seed):
            raise ValueError(f"seed = {seed}: needs integers from 0 to {2**63 - 1}")
        return list(seed)
    if not isinstance(seed, Integral) or not 0 <= seed < 2**31:
        raise ValueError(f"seed = {seed}: needs an integer from 0 to {2**31 - 1}")
    return [(seed << 32) + index for index in range(first, first + count)]


def item_seeds(seed: int, purpose: int, count: int, first: int = 0, draw: int = 0) -> list[np.random.SeedSequence]:
    """The seeds of ``count`` items from number ``first``, apart from those of samples. An item's depends on seed,
    purpose, draw and its number alone."""
    return [np.random.SeedSequence((seed, item, purpose, *[draw] * (draw > 0))) for item in range(first, first + count)]
