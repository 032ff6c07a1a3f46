"""Brownian noise: one path per sample, which smaller steps refine instead of replacing."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torchsde
from torch import Tensor

from samplers.checks import check_process, choose
from samplers.noise.door import as_noise
from samplers.noise.seeded import SeededNoise
from samplers.padding import real_part
from samplers.protocol import GaussianProcess, Noise

DEPTH = 20
"""Halvings of an octave of the clock: the path is resolved to 2^-20 of the clock's own value."""

CACHE = DEPTH + 4
"""Nodes of the tree whose values are kept: one descent, so that the next one starts where this one was."""


class BrownianPath:
    """One Brownian motion of the shape of a sample's event, fixed by its seed, in the clock tau > 0; float64, CPU.

    The clock of a diffusion spans ten and more powers of ten, which one tree of halves could not resolve at its small
    end. Each octave [2^k, 2^(k+1)] therefore has a tree of its own, seeded by (seed, k): its value at a time does not
    depend on which times were asked for before. Only the octave last used is held.
    """

    def __init__(self, seed: int, shape: Sequence[int]) -> None:
        self.seed, self.shape = seed, tuple(shape)
        self.octave: int | None = None
        self.tree: Any = None
        self.last: tuple[float, Tensor] | None = None

    def _ascent(self, octave: int, cells: float) -> Tensor:
        """W(tau) - W(2^octave), with tau = 2^octave (1 + cells / 2^DEPTH)."""
        if octave != self.octave:
            # In whole cells, midpoints are exact, and a descent ends at the cell that was asked for.
            self.tree = torchsde.BrownianInterval(
                0.0, 2.0**DEPTH, size=self.shape, dtype=torch.float64, device="cpu",
                entropy=(self.seed << 16) + octave + 2**15, tol=0.5, halfway_tree=True, cache_size=CACHE,
            )  # fmt: skip
            self.octave = octave
        return math.sqrt(2.0 ** (octave - DEPTH)) * self.tree(0.0, cells)

    def increment(self, start: float, end: float) -> Tensor:
        """W(end) - W(start) for 0 < start < end, times rounded to 2^-20 of themselves; quickest from late to early."""
        (upper, cells), (lower, first) = _place(end), _place(start)
        above = self.last[1] if self.last is not None and self.last[0] == end else self._ascent(upper, cells)
        total = above
        for octave in range(upper - 1, lower - 1, -1):
            total = total + self._ascent(octave, 2.0**DEPTH)
        below = self._ascent(lower, first)
        self.last = start, below
        return total - below


def _place(tau: float) -> tuple[int, float]:
    """The octave of tau and its cell there."""
    mantissa, exponent = math.frexp(tau)
    return exponent - 1, float(round((2 * mantissa - 1) * 2**DEPTH))


class BrownianNoise:
    """Noise from one Brownian path per sample: the same seed with more steps refines the same path.

    The path runs in the clock tau(t) = exp(-log_snr(t)) = sigma^2 / alpha^2: since d tau = g^2 / alpha^2 dt, the noise
    of the reverse SDE for x / alpha, (g / alpha) dw, is exactly dW(tau), for every SDE. The loop asks ``between(t, s)``
    for the noise of a step. Called itself, as for the starting point, it is SeededNoise(seeds). Row i depends on
    ``seeds[i]`` alone, and with ``sizes`` not on its padding, as in SeededNoise. A step costs about
    0.5 ms per sample, and 2 ms for 3 x 32 x 32.
    """

    def __init__(self, seeds: Sequence[int], sde, sizes: Sequence[int] | None = None) -> None:
        self.seeds, self.sde = list(seeds), sde
        self.independent = SeededNoise(self.seeds, sizes)
        self.paths: list[BrownianPath] = []

    def __call__(self, x: Tensor) -> Tensor:
        """Independent standard normal noise in the shape, dtype and device of x, whose rows are the samples."""
        return self.independent(x)

    def uniform(self, x: Tensor) -> Tensor:
        """Independent numbers in [0, 1), of SeededNoise."""
        return self.independent.uniform(x)

    def between(self, t: Tensor, s: Tensor) -> Noise:
        """The noise of a step from t to s < t, a callable like randn_like; t, s 0-d.

        Its first draw is (W(tau_t) - W(tau_s)) / sqrt(tau_t - tau_s); others, as for a corrector, are independent.
        """
        start, end = (math.exp(-self.sde.log_snr(u).item()) for u in (s, t))
        return _StepNoise(self, start, end)

    def increments(self, x: Tensor, start: float, end: float) -> Tensor:
        if len(x) != len(self.seeds):
            raise ValueError(f"BrownianNoise has {len(self.seeds)} seeds, x has {len(x)} rows: give one seed per row")
        rows = torch.zeros(x.shape, dtype=torch.float64, device="cpu")
        parts = [*rows]
        if self.independent.sizes is not None:
            pairs = zip(rows, self.independent.sizes, strict=True)
            parts = [row[real_part(row.shape, size)] for row, size in pairs]
        if [path.shape for path in self.paths] != [tuple(part.shape) for part in parts]:
            seeded = zip(self.seeds, parts, strict=True)
            self.paths = [BrownianPath(seed, tuple(part.shape)) for seed, part in seeded]
        for part, path in zip(parts, self.paths, strict=True):
            part[...] = path.increment(start, end)
        return (rows / math.sqrt(end - start)).to(x.device, x.dtype)


class _StepNoise:
    """The noise of one step of a BrownianNoise, from the clock's ``end`` down to ``start``."""

    def __init__(self, noise: BrownianNoise, start: float, end: float) -> None:
        self.noise, self.start, self.end = noise, start, end
        self.drawn = not start < end

    def __call__(self, x: Tensor) -> Tensor:
        if self.drawn:
            return self.noise.independent(x)
        self.drawn = True
        return self.noise.increments(x, self.start, self.end)

    def uniform(self, x: Tensor) -> Tensor:
        return self.noise.uniform(x)

    def between(self, t: Tensor, s: Tensor) -> Noise:
        return self


NOISES = ("independent", "brownian")


def make_noise(kind: str, seeds: Sequence[int], sde, sizes: Sequence[int] | None = None) -> Noise:
    """Noise of a kind for samples with these seeds: "independent" draws or increments of "brownian" paths, which need a
    Gaussian process. ``sizes`` are those of SeededNoise."""
    if choose("noise", kind, NOISES) == "independent":
        return as_noise(SeededNoise(seeds, sizes), sde)
    check_process(sde, GaussianProcess, f"noise = {kind!r}")
    return as_noise(BrownianNoise(seeds, sde, sizes), sde)
