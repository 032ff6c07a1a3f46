"""How good it is: distances between sets of features, each with an interval, and what a reader should know of them."""

from metrics.bootstrap import subsampled
from metrics.estimate import Estimate
from metrics.frechet import Moments, frechet_distance, gaussian_distance
from metrics.kernel import KERNELS, kernel_distance
from metrics.metric import LEAST, METRICS, Metric
from metrics.neighbours import Memorisation, coverage, density, near_duplicates, precision, recall
from metrics.proportion import share
from metrics.sliced import sliced_wasserstein, wasserstein_1d
from metrics.two_sample import CLASSIFIERS, two_sample_test

__all__ = [
    "CLASSIFIERS",
    "Estimate",
    "KERNELS",
    "LEAST",
    "METRICS",
    "Memorisation",
    "Metric",
    "Moments",
    "coverage",
    "density",
    "frechet_distance",
    "gaussian_distance",
    "kernel_distance",
    "near_duplicates",
    "precision",
    "recall",
    "share",
    "sliced_wasserstein",
    "subsampled",
    "two_sample_test",
    "wasserstein_1d",
]
