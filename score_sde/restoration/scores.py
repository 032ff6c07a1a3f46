"""Scores of restored items where the truth is known: over what was hidden, per item and of all."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sde.data import Dataset
from sde.data.sizes import real
from sde.inverse.operators import LinearOperator, Mask

INTERVAL = 0.8
"""Probability of the central interval whose coverage is counted."""


class Scores(NamedTuple):
    """Of k samples each: the peak signal-to-noise ratio of the samples and of their mean, in dB; the continuous ranked
    probability score in data units, and the share of entries in the central interval of the samples, or None for one
    sample."""

    psnr: float
    psnr_mean: float
    crps: float | None
    coverage: float | None


def hidden_entries(operator: LinearOperator, truth: Tensor, sizes: Tensor | None = None) -> Tensor:
    """Booleans (n, *event): what a mask hides; all entries where the measurement mixes them. Of padded items, by their
    ``sizes`` (n,), those that are real."""
    inside = torch.ones(truth.shape, dtype=torch.bool)
    if sizes is not None:
        inside &= real(sizes, truth.shape[1:])
    return inside & ~operator.mask.cpu() if isinstance(operator, Mask) else inside


def crps(samples: Tensor, truth: Tensor) -> Tensor:
    """E|X - y| - E|X - X'| / 2 of k samples X, (k, ...), and the truth y (...), in every entry, with the mean over
    pairs of different samples for the second expectation, which is unbiased for any k of at least 2 (Gneiting and
    Raftery 2007, eq. 21; Ferro 2014)."""
    k, ordered = len(samples), samples.double().sort(0).values
    rank = torch.arange(k, dtype=torch.float64).view(-1, *[1] * truth.ndim)
    apart = ((2 * rank + 1 - k) * ordered).sum(0) / (k * (k - 1))
    return (ordered - truth).abs().mean(0) - apart


def covered(samples: Tensor, truth: Tensor) -> Tensor:
    """Whether the truth (...) lies in the central INTERVAL of k samples (k, ...), by their interpolated quantiles."""
    ends = torch.tensor([(1 - INTERVAL) / 2, (1 + INTERVAL) / 2], dtype=torch.float64)
    low, high = torch.quantile(samples.double(), ends, dim=0)
    # Samples that are all equal, as quantized ones may be, differ from themselves by rounding.
    slack = 1e-9 * samples.double().abs().amax(0)
    return (low - slack <= truth) & (truth <= high + slack)


def expected_coverage(k: int) -> float:
    """About what the interval of k exact samples covers: their quantile p has the rank 1 + (k - 1) p of k + 1."""
    return INTERVAL * (k - 1) / (k + 1)


def peak_of(data: Dataset) -> float:
    """The range of the data, in data units: that of the levels, or from the lowest to the highest value."""
    levels = data.transform.num_levels
    return levels - 1 if levels else data.statistics.high - data.statistics.low


def decibels(peak: float, square: float) -> float:
    """10 log10(peak^2 / square), infinite where there is no error."""
    return 10 * math.log10(peak**2 / square) if square and peak else math.inf if not square else -math.inf


def score(samples: Tensor, truth: Tensor, hidden: Tensor, peak: float) -> tuple[Scores, list[Scores]]:
    """Scores of all items, over all hidden entries of all of them, and of each: samples (n, k, *event), the truth
    and what is ``hidden`` (n, *event). An item of which nothing is hidden has no errors, and no say in the sum."""
    k, truth = samples.shape[1], truth.double()
    draws = samples.double().movedim(1, 0)
    square = (draws - truth).square().mean(0)
    values = {"psnr": square, "psnr_mean": (draws.mean(0) - truth).square()}
    if k > 1:
        values |= {"crps": crps(draws, truth), "coverage": covered(draws, truth).double()}

    def over(chosen: Tensor, of: slice | int) -> Scores:
        means = {name: value[of][chosen].mean().item() if chosen.any() else 0.0 for name, value in values.items()}
        for name in ("psnr", "psnr_mean"):
            means[name] = decibels(peak, means[name])
        return Scores(means["psnr"], means["psnr_mean"], means.get("crps"), means.get("coverage"))

    return over(hidden, slice(None)), [over(hidden[i], i) for i in range(len(truth))]
