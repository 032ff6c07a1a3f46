"""Metrics by name: what is known of each beside its formula."""

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
from score_sde.metrics.neighbors import coverage, density, precision, recall
from score_sde.metrics.sliced import sliced_wasserstein
from score_sde.metrics.two_sample import two_sample_test
from sde.device import as_tensor

MIN_ITEMS = 50
"""Items of each set, below which no interval here has been tried."""


@dataclass(frozen=True)
class Metric:
    """``function(samples, data)`` of features (n, d) and (m, d), float64, is a number, or an Estimate where it has an
    interval of its own.

    ``larger`` is better, or smaller. A ``biased`` one is too large for finite sets. ``limits`` hold all its values.
    ``items(d)`` of each set are needed at least.
    """

    title: str
    function: Callable[[Tensor, Tensor], float | Estimate]
    larger: bool = False
    biased: bool = False
    limits: tuple[float, float] = (0.0, math.inf)
    items: Callable[[int], int] = lambda d: MIN_ITEMS

    def __call__(self, samples: Tensor, data: Tensor) -> float:
        """The value alone."""
        found = self.function(as_tensor(samples), as_tensor(data))
        return found.value if isinstance(found, Estimate) else found

    def estimate(self, samples: Tensor, data: Tensor, subsamples: int = 100, seed: int = 0) -> Estimate:
        """The value with its interval. Raises ValueError for fewer items than it needs."""
        samples, data = as_tensor(samples), as_tensor(data)
        dimension = samples.shape[1]
        if min(len(samples), len(data)) < self.items(dimension):
            raise ValueError(self.shortage(len(samples), len(data), dimension))
        found = self.function(samples, data)
        if isinstance(found, Estimate):
            return found
        options: dict[str, Any] = {"subsamples": subsamples, "seed": seed, "biased": self.biased, "limits": self.limits}
        return subsampled(self, samples, data, **options)

    def least(self, n: int) -> float:
        """The smallest step of its values for n samples, those of a share being counted; 0 for any other."""
        return 1 / n if self.limits == (0.0, 1.0) else 0.0

    def shortage(self, n: int, m: int, dimension: int) -> str:
        """The sentence about too few items."""
        return (
            f"{self.title}: {n} samples and {m} real items are too few for {dimension} features, it needs at least "
            f"{self.items(dimension)} of each"
        )


def _nonsingular(dimension: int) -> int:
    """So many items that both covariances can have full rank."""
    return max(MIN_ITEMS, dimension + 1)


METRICS: dict[str, Metric] = {
    "frechet": Metric("Frechet distance", frechet_distance, biased=True, items=_nonsingular),
    "kernel": Metric("kernel distance (KID)", kernel_distance, limits=(-math.inf, math.inf)),
    "energy": Metric("energy distance", partial(kernel_distance, kernel="energy"), limits=(-math.inf, math.inf)),
    "sliced_wasserstein": Metric("sliced Wasserstein-2, squared", sliced_wasserstein, biased=True),
    "precision": Metric("precision", precision, larger=True, limits=(0.0, 1.0)),
    "recall": Metric("recall", recall, larger=True, limits=(0.0, 1.0)),
    "density": Metric("density", density, larger=True),
    "coverage": Metric("coverage", coverage, larger=True, limits=(0.0, 1.0)),
    "two_sample_linear": Metric("two-sample test, linear", two_sample_test, limits=(0.0, 1.0)),
    "two_sample_neighbors": Metric(
        "two-sample test, neighbors", partial(two_sample_test, classifier="neighbors"), limits=(0.0, 1.0)
    ),
}
"""The metrics of two sets of features."""
