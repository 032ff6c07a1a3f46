"""The sliced Wasserstein distance."""

import numpy as np
import torch
from torch import Tensor

from score_sde.metrics.streams import PROJECTIONS
from sde.device import wide

DIRECTIONS = 512
"""Directions that a distance is the mean over."""


def sliced_wasserstein(x: Tensor, y: Tensor, directions: int = DIRECTIONS, seed: int = 0) -> float:
    """The mean over directions of the squared 2-Wasserstein distance of x (n, d) and y (m, d) projected on them
    (Bonneel et al. 2015), in features squared; exact for n and m that differ, and for each direction.

    The directions are random orthonormal bases, so that the part of it that the means make has no error where there
    are a whole number of bases; in one dimension the one direction is all.
    """
    x, y = wide(x), wide(y)
    total, bases = x.new_zeros(()), orthonormal(x.shape[1], directions, seed).to(x.device)
    for part in bases.split(64):
        total += wasserstein_1d(x @ part.T, y @ part.T).sum()
    return (total / len(bases)).item()


def wasserstein_1d(x: Tensor, y: Tensor) -> Tensor:
    """The squared 2-Wasserstein distance of each column of x (n, c) and y (m, c): the integral over u of the squared
    difference of the quantile functions, which are constant between multiples of 1/n and of 1/m."""
    n, m = len(x), len(y)
    # In units of 1 / (n m) the steps are whole numbers.
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()
    widths = ends.diff(prepend=ends.new_zeros(1)).double().to(x.device) / (n * m)
    own, other = (((ends - 1) // step).to(x.device) for step in (m, n))
    gaps = x.sort(0).values[own] - y.sort(0).values[other]
    return widths @ gaps.square()


def orthonormal(dimension: int, count: int, seed: int) -> Tensor:
    """Unit vectors (count, d), basis by basis, or the one of one dimension; float64."""
    if dimension == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    generator = np.random.default_rng((seed, PROJECTIONS))
    bases, wanted = [], count
    while wanted > 0:
        normal = torch.from_numpy(generator.standard_normal((dimension, min(dimension, wanted))))
        bases.append(torch.linalg.qr(normal).Q.T)
        wanted -= dimension
    return torch.cat(bases)
