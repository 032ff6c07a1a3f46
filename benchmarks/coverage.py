"""Coverage of the metrics' 95 % intervals: how often they hold the truth, over simulated sets whose truth is known.

    python benchmarks/coverage.py [--cases 200] [--subsamples 100] [--only frechet,energy]

Each case draws new sets from known laws. The truth is a closed form; for metrics without one (precision, recall,
density, coverage and the test by neighbors, which depend on the number of items) it is the mean over 2,000 other
draws. The last line is JSON: for each case the share of intervals that hold the truth, those below and above it, and
the truth itself.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from score_sde.metrics.bootstrap import subsampled
from score_sde.metrics.estimate import Estimate
from score_sde.metrics.frechet import gaussian_distance
from score_sde.metrics.metric import METRICS
from score_sde.metrics.neighbors import share_close, share_nearer
from score_sde.metrics.proportion import share

DRAWS = 2000
"""Sets whose mean stands for a truth that has no closed form."""


@dataclass(frozen=True)
class Gaussian:
    """N(mean, factor factor^T) in d dimensions."""

    mean: Tensor
    factor: Tensor

    def draw(self, n: int, generator: Generator) -> Tensor:
        """(n, d)."""
        return self.mean + torch.randn(n, len(self.mean), generator=generator, dtype=torch.float64) @ self.factor.T

    @property
    def covariance(self) -> Tensor:
        """(d, d)."""
        return self.factor @ self.factor.T


@dataclass(frozen=True)
class Case:
    """Sets of ``n`` and ``m`` items of two laws, what is estimated of them, and the truth, or None for the mean of
    ``value``."""

    first: Gaussian
    second: Gaussian
    n: int
    m: int
    estimate: Callable[[Tensor, Tensor, int, int], Estimate]
    truth: float | None = None

    def sets(self, seed: int) -> tuple[Tensor, Tensor]:
        """A draw of both."""
        generator = Generator().manual_seed(seed)
        return self.first.draw(self.n, generator), self.second.draw(self.m, generator)


def gaussian(d: int, seed: int, shift: float = 0.0, spread: float = 1.0, decay: float = 0.0) -> Gaussian:
    """One with axes in random directions, whose variances fall like j^-decay, and its mean ``shift`` off the origin."""
    generator = Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
    scales = spread * torch.arange(1, d + 1, dtype=torch.float64) ** (-decay / 2)
    mean = torch.full((d,), shift / d**0.5, dtype=torch.float64)
    return Gaussian(mean, axes * scales)


def frechet(first: Gaussian, second: Gaussian) -> float:
    """The distance of the laws."""
    return gaussian_distance(first.mean, first.covariance, second.mean, second.covariance)


def polynomial_mmd(first: Gaussian, second: Gaussian) -> float:
    """MMD^2 of the kernel (x . y / d + 1)^3: its powers are inner products of the laws' raw moments."""
    d = len(first.mean)

    def moments(law: Gaussian) -> tuple[Tensor, Tensor, Tensor]:
        mean, cov = law.mean, law.covariance
        mixed = torch.einsum("i,jk->ijk", mean, cov)
        third = torch.einsum("i,j,k->ijk", mean, mean, mean) + mixed + mixed.permute(1, 0, 2) + mixed.permute(1, 2, 0)
        return mean, cov + torch.outer(mean, mean), third

    parts = [(a - b).square().sum().item() for a, b in zip(moments(first), moments(second), strict=True)]
    return 3 * parts[0] / d + 3 * parts[1] / d**2 + parts[2] / d**3


def energy_1d(first: Gaussian, second: Gaussian) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'| in one dimension, by the mean of a folded normal variable."""

    def mean_of(a: Gaussian, b: Gaussian) -> float:
        shift, s = (a.mean - b.mean).item(), math.sqrt((a.covariance + b.covariance).item())
        return s * math.sqrt(2 / math.pi) * math.exp(-(shift**2) / (2 * s**2)) + shift * math.erf(shift / (s * 2**0.5))

    return 2 * mean_of(first, second) - mean_of(first, first) - mean_of(second, second)


def phi(z: float) -> float:
    """The normal distribution function."""
    return 0.5 * (1 + math.erf(z / 2**0.5))


def of(name: str) -> Callable[[Tensor, Tensor, int, int], Estimate]:
    """A metric's estimate."""
    return METRICS[name].estimate


def line(mean: float, std: float) -> Gaussian:
    """In one dimension."""
    return Gaussian(torch.tensor([mean], dtype=torch.float64), torch.tensor([[std]], dtype=torch.float64))


def recognized(x: Tensor, y: Tensor, subsamples: int, seed: int) -> Estimate:
    """The share of x above 0."""
    return share(int((x > 0).sum()), len(x))


def distances(function: Callable[[Tensor, Tensor], float]) -> Callable[[Tensor, Tensor, int, int], Estimate]:
    """A function of distances (n, 1) to training items, as memorization takes it."""
    return lambda x, y, subsamples, seed: subsampled(
        function, x, y, subsamples=subsamples, seed=seed, limits=(0.0, 1.0)
    )


def cases(n: int = 400, m: int = 300) -> dict[str, Case]:
    """The simulated cases, of so many items unless they say otherwise."""
    a, b = gaussian(6, 1, decay=1.0), gaussian(6, 2, shift=0.5, spread=1.2, decay=1.0)
    wide, other = gaussian(64, 3, decay=1.0), gaussian(64, 4, shift=0.5, decay=1.0)
    three, near = gaussian(3, 5), gaussian(3, 6, shift=0.6, spread=1.1)
    plain, moved = gaussian(5, 7), gaussian(5, 8, shift=1.0, spread=1.3)
    one, two = line(0.0, 1.0), line(0.4, 1.3)
    left, right = (Gaussian(sign * torch.tensor([0.6, 0.0, 0.0]).double(), torch.eye(3).double()) for sign in (-1, 1))
    return {
        "frechet": Case(a, b, n, m, of("frechet"), frechet(a, b)),
        "frechet, equal laws": Case(a, a, n, m, of("frechet"), 0.0),
        "frechet, 64 features": Case(wide, other, 1000, 360, of("frechet"), frechet(wide, other)),
        "frechet, 64 features, equal laws": Case(wide, wide, 1000, 360, of("frechet"), 0.0),
        "kernel": Case(three, near, n, m, of("kernel"), polynomial_mmd(three, near)),
        "kernel, equal laws": Case(three, three, n, m, of("kernel"), 0.0),
        "energy": Case(one, two, n, m, of("energy"), energy_1d(one, two)),
        "energy, equal laws": Case(one, one, n, m, of("energy"), 0.0),
        "sliced_wasserstein": Case(one, two, n, m, of("sliced_wasserstein"), 0.4**2 + 0.3**2),
        "sliced_wasserstein, 5 features": Case(plain, moved, n, m, of("sliced_wasserstein"), 1.0 / 5 + 0.3**2),
        "sliced_wasserstein, equal laws": Case(one, one, n, m, of("sliced_wasserstein"), 0.0),
        **{name: Case(three, near, n, m, of(name)) for name in ("precision", "recall", "density", "coverage")},
        "two_sample_linear": Case(left, right, n, m, of("two_sample_linear"), phi(0.6)),
        "two_sample_linear, equal laws": Case(left, left, n, m, of("two_sample_linear"), 0.5),
        "two_sample_neighbors": Case(left, right, n, m, of("two_sample_neighbors")),
        "accuracy": Case(line(1.5, 1.0), one, n // 2, 2, recognized, phi(1.5)),
        "memorized: nearer": Case(one, line(0.5, 1.0), n, m, distances(share_nearer), phi(0.5 / 2**0.5)),
        "memorized: close": Case(line(-0.5, 1.0), one, n, m, distances(share_close), phi(-1.6448536269514722 + 0.5)),
    }


def coverage(case: Case, count: int, subsamples: int, seed: int = 0) -> dict[str, float]:
    """Of ``count`` intervals the share that hold the truth, lie below and above it; the truth; the mean of the
    estimates, corrected, and the mean width."""
    truth = case.truth
    if truth is None:
        values = [case.estimate(*case.sets(10**6 + draw), 2, 0).value for draw in range(DRAWS)]
        truth = sum(values) / len(values)
    found = [case.estimate(*case.sets(seed + draw), subsamples, seed + draw) for draw in range(count)]
    below, above = (sum(test) / count for test in zip(*((e.high < truth, e.low > truth) for e in found), strict=True))
    means = {name: sum(getattr(e, name) for e in found) / count for name in ("value", "corrected", "low", "high")}
    return {"covered": round(1 - below - above, 4), "below": below, "above": above, "truth": truth, **means}


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--subsamples", type=int, default=100)
    parser.add_argument("--only")
    options = parser.parse_args()
    found = {}
    for name, case in cases().items():
        if not options.only or name.partition(",")[0] in options.only.split(","):
            found[name] = coverage(case, options.cases, options.subsamples)
            print(f"{name:<34}{found[name]['covered']:>8.1%} of {options.cases}", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
