"""What is known of a metric beside its formula."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from score_sde.metrics.bootstrap import subsampled
from score_sde.metrics.estimate import Estimate
from score_sde.metrics.frechet import frechet_distance
from score_sde.metrics.kernel import kernel_distance
from score_sde.metrics.neighbors import coverage, density, ideal_coverage, precision, recall
from score_sde.metrics.sliced import sliced_wasserstein
from score_sde.metrics.two_sample import two_sample_test

LEAST = 50
"""Items of each set, below which no interval here has been tried."""


def _equal(value: float) -> Callable[[int, int], float]:
    return lambda n, m: value


@dataclass(frozen=True)
class Metric:
    """``function(samples, data)`` of features (n, d) and (m, d), float64, is a number, or an Estimate where it has an
    interval of its own.

    ``ideal(n, m)`` is its mean where both have one law, of so many items, or for a ``biased`` one its limit; None where
    that depends on the law. ``larger`` is better, or smaller. ``limits`` hold all its values. ``symmetric``: the same
    with the two exchanged. ``rotations``: the same for features that an orthogonal map turned. ``items(d)`` of each set
    are needed at least.
    """

    title: str
    function: Callable[[Tensor, Tensor], float | Estimate]
    ideal: Callable[[int, int], float] | None = None
    larger: bool = False
    biased: bool = False
    limits: tuple[float, float] = (0.0, math.inf)
    symmetric: bool = True
    rotations: bool = True
    items: Callable[[int], int] = lambda d: LEAST

    def __call__(self, samples: Tensor, data: Tensor) -> float:
        """The value alone."""
        found = self.function(samples, data)
        return found.value if isinstance(found, Estimate) else found

    def estimate(self, samples: Tensor, data: Tensor, resamples: int = 100, seed: int = 0) -> Estimate:
        """The value with its interval. Raises ValueError for fewer items than it needs."""
        dimension = samples.shape[1]
        if min(len(samples), len(data)) < self.items(dimension):
            raise ValueError(self.shortage(len(samples), len(data), dimension))
        found = self.function(samples, data)
        if isinstance(found, Estimate):
            return found
        options: dict[str, Any] = {"resamples": resamples, "seed": seed, "biased": self.biased, "limits": self.limits}
        return subsampled(self, samples, data, **options)

    def shortage(self, n: int, m: int, dimension: int) -> str:
        """The sentence about too few items."""
        return (
            f"{self.title}: {n} samples and {m} real items are too few for {dimension} features, it needs at least "
            f"{self.items(dimension)} of each"
        )


def _nonsingular(dimension: int) -> int:
    """So many items that both covariances can have full rank."""
    return max(LEAST, dimension + 1)


METRICS: dict[str, Metric] = {
    "frechet": Metric("Frechet distance", frechet_distance, _equal(0), biased=True, items=_nonsingular),
    "kernel": Metric("kernel distance (KID)", kernel_distance, _equal(0), limits=(-math.inf, math.inf)),
    "energy": Metric(
        "energy distance", partial(kernel_distance, kernel="energy"), _equal(0), limits=(-math.inf, math.inf)
    ),
    "sliced_wasserstein": Metric(
        "sliced Wasserstein-2, squared", sliced_wasserstein, _equal(0), biased=True, rotations=False
    ),
    "precision": Metric("precision", precision, larger=True, limits=(0.0, 1.0), symmetric=False),
    "recall": Metric("recall", recall, larger=True, limits=(0.0, 1.0), symmetric=False),
    "density": Metric("density", density, _equal(1), larger=True, symmetric=False),
    "coverage": Metric("coverage", coverage, ideal_coverage, larger=True, limits=(0.0, 1.0), symmetric=False),
    "two_sample_linear": Metric("two-sample test, linear", two_sample_test, _equal(0.5), limits=(0.0, 1.0)),
    "two_sample_neighbors": Metric(
        "two-sample test, neighbors", partial(two_sample_test, classifier="neighbors"), _equal(0.5), limits=(0.0, 1.0)
    ),
}
"""The metrics of two sets of features."""
