"""Nearest neighbors: are samples like data, is all of the data there, are items copied or repeated."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from score_sde.metrics.bootstrap import subsampled
from score_sde.metrics.distances import blocks, distances, nearest, radii
from score_sde.metrics.estimate import Estimate
from sde.device import wide

CLOSE_SHARE = 0.05
"""The share of real items that counts as close to the training items, or to each other, by definition."""


def precision(x: Tensor, y: Tensor, k: int = 3) -> float:
    """The share of samples x (n, d) that lie in the ball of some y (m, d), which reaches to its k-th nearest other y
    (Kynkaanniemi et al. 2019, eq. 2)."""
    return (_balls(x, y, k)[0] > 0).double().mean().item()


def recall(x: Tensor, y: Tensor, k: int = 3) -> float:
    """The share of data y that lie in the ball of some sample x: ``precision`` the other way round."""
    return precision(y, x, k)


def density(x: Tensor, y: Tensor, k: int = 5) -> float:
    """The mean number of balls of y that hold a sample x, over k (Naeem et al. 2020); its mean is 1 where both
    have one law, and outliers among y count for little."""
    return _balls(x, y, k)[0].double().mean().item() / k


def coverage(x: Tensor, y: Tensor, k: int = 5) -> float:
    """The share of the balls of y that hold a sample x (Naeem et al. 2020, section 3)."""
    return _balls(x, y, k)[1].double().mean().item()


def _balls(x: Tensor, y: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """For each x the number of balls of y around it (n,), and for each ball of y whether it holds an x (m,)."""
    x, y = wide(x), wide(y)
    reach, counts, held = radii(y, k), [], torch.zeros(len(y), dtype=torch.bool, device=y.device)
    for rows in blocks(x, y):
        inside = distances(x[rows], y) <= reach
        counts.append(inside.sum(1))
        held |= inside.any(0)
    return torch.cat(counts), held


@dataclass(frozen=True)
class Memorization:
    """Nearness of samples to the training items, beside that of held-out items.

    ``nearer``: the probability that a sample is nearer to its nearest training item than a held-out item is to its
    own. It is 1/2 where samples are new (the statistic of Meehan, Chaudhuri and Dasgupta 2020, over all of the space).
    ``close``: the share of samples nearer than the nearest 5 % of held-out items, 0.05 where they are new.
    """

    nearer: Estimate
    close: Estimate

    @classmethod
    def from_sets(
        cls, samples: Tensor, held_out: Tensor, training: Tensor, subsamples: int = 100, seed: int = 0
    ) -> "Memorization":
        """From features (n, d) of samples, (m, d) of held-out and (k, d) of training items."""
        own, other = (nearest(wide(x), wide(training))[:, None] for x in (samples, held_out))
        options: dict[str, Any] = {"subsamples": subsamples, "seed": seed, "limits": (0.0, 1.0)}
        return cls(*(subsampled(function, own, other, **options) for function in (share_nearer, share_close)))


def share_nearer(own: Tensor, other: Tensor) -> float:
    """P(own < other) + P(own = other) / 2 of distances (n, 1) and (m, 1)."""
    ranks = other.squeeze(1).sort().values
    below, through = (torch.searchsorted(ranks, own.squeeze(1), right=right) for right in (False, True))
    return 1 - (below + through).double().mean().item() / (2 * len(other))


def share_close(own: Tensor, other: Tensor) -> float:
    """The share of distances own (n, 1) below the 5 % quantile of other (m, 1)."""
    return (own < other.quantile(CLOSE_SHARE)).double().mean().item()


def near_duplicates(samples: Tensor, real: Tensor, subsamples: int = 100, seed: int = 0) -> Estimate:
    """The share of samples (n, d) nearer to another one than the nearest 5 % of as many real items (m, d) are to each
    other, 0.05 where no sample repeats another; of the larger set so many are taken as there are in the smaller."""
    size = min(len(samples), len(real))
    # Evenly, as items may be in order of their classes.
    parts = (x[torch.linspace(0, len(x) - 1, size).round().long()] for x in (samples, real))
    return subsampled(share_near, *parts, subsamples=subsamples, seed=seed, limits=(0.0, 1.0))


def share_near(x: Tensor, y: Tensor) -> float:
    """The share of x (n, d) nearer to another x than the 5 % of y (n, d) that are nearest to another y are to it."""
    own, other = (radii(wide(z), 1)[:, None] for z in (x, y))
    return share_close(own, other)
