"""Metrics: distances between sets of features, each with an interval, and what a reader should know of them."""

from score_sde.metrics.bootstrap import subsampled
from score_sde.metrics.estimate import Estimate
from score_sde.metrics.frechet import Moments, frechet_distance, gaussian_distance
from score_sde.metrics.kernel import KERNELS, kernel_distance
from score_sde.metrics.metric import METRICS, MIN_ITEMS, Metric
from score_sde.metrics.neighbors import Memorization, coverage, density, near_duplicates, precision, recall
from score_sde.metrics.proportion import share
from score_sde.metrics.sliced import sliced_wasserstein, wasserstein_1d
from score_sde.metrics.two_sample import CLASSIFIERS, two_sample_test

__all__ = [
    "CLASSIFIERS",
    "Estimate",
    "KERNELS",
    "MIN_ITEMS",
    "METRICS",
    "Memorization",
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
