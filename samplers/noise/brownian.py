"""Brownian noise: one path per sample, which smaller steps refine instead of replacing."""

import math
from collections.abc import Sequence

from torch import Tensor

from samplers.checks import check_process, choose
from samplers.noise.door import as_noise
from samplers.noise.path import BrownianPaths, resolved
from samplers.noise.seeded import SeededNoise
from samplers.protocol import GaussianProcess, Noise


class BrownianNoise:
    """Noise from one Brownian path per sample: the same seed with more steps refines the same path.

    The path runs in the clock tau(t) = exp(-log_snr(t)) = sigma^2 / alpha^2: since d tau = g^2 / alpha^2 dt, the noise
    of the reverse SDE for x / alpha, (g / alpha) dw, is exactly dW(tau), for every SDE. The loop asks ``between(t, s)``
    for the noise of a step. Called itself, as for the starting point, it is SeededNoise(seeds). Row i depends on
    ``seeds[i]`` alone, and with ``sizes`` not on its padding, as in SeededNoise. A path is drawn on the device of the
    states, and costs there what about 20 draws cost (``samplers.noise.path``).
    """

    def __init__(self, seeds: Sequence[int], sde, sizes: Sequence[int] | None = None) -> None:
        self.seeds, self.sde = list(seeds), sde
        self.independent = SeededNoise(self.seeds, sizes)
        self.paths = BrownianPaths(self.independent.streams, self.independent.sizes)

    def __call__(self, x: Tensor) -> Tensor:
        """Independent standard normal noise in the shape, dtype and device of x, whose rows are the samples."""
        return self.independent(x)

    def uniform(self, x: Tensor) -> Tensor:
        """Independent numbers in [0, 1), of SeededNoise."""
        return self.independent.uniform(x)

    def between(self, t: Tensor, s: Tensor) -> Noise:
        """The noise of a step from t to s < t, a callable like randn_like; t, s 0-d.

        Its first draw is (W(tau_t) - W(tau_s)) / sqrt(tau_t - tau_s), the clock rounded to 2^-20 of itself, where the
        path has its places; others, as for a corrector, are independent, and so is the first of a step between one
        place.
        """
        start, end = (resolved(math.exp(-self.sde.log_snr(u).item())) for u in (s, t))
        return _StepNoise(self, start, end)

    def increments(self, x: Tensor, start: float, end: float) -> Tensor:
        if len(x) != len(self.seeds):
            raise ValueError(f"BrownianNoise has {len(self.seeds)} seeds, x has {len(x)} rows: give one seed per row")
        return (self.paths.increment(x.shape, x.device, start, end) / math.sqrt(end - start)).to(x.dtype)


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
