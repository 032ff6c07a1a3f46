"""Statistics of data: range, mean and variance, measured in one pass."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sde.data.sizes import cut, real

VALUES_AT_ONCE = 2**22


@dataclass(frozen=True)
class Statistics:
    """Of ``count`` items: whether all values are ``whole`` numbers, and the ``smallest``, the ``largest``, the mean and
    the variance of each dimension, float64 (*event)."""

    count: int
    whole: bool
    smallest: Tensor
    largest: Tensor
    mean: Tensor
    var: Tensor
    counts: Tensor | None = None
    """Of padded items, how many are real in each dimension (*event), float64; None where all are. A dimension that is
    real in none has the mean and the variance 0."""

    @property
    def low(self) -> float:
        """The smallest value of all."""
        return self.smallest.min().item()

    @property
    def high(self) -> float:
        """The largest value of all."""
        return self.largest.max().item()

    @property
    def mean_var(self) -> float:
        """The mean of the variances of all dimensions, of each as often as it is real."""
        if self.counts is None:
            return self.var.mean().item()
        return ((self.var * self.counts).sum() / self.counts.sum()).item()

    def channels(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel, the first event axis, over items and all other axes; (C,)."""
        mean, var = _by_channel(self.mean), _by_channel(self.var)
        if self.counts is None:
            return mean.mean(1), (var.mean(1) + mean.var(1, correction=0)).sqrt()
        share = _by_channel(self.counts)
        share = share / share.sum(1, keepdim=True)
        middle = (share * mean).sum(1, keepdim=True)
        return middle[:, 0], (share * (var + (mean - middle).square())).sum(1).sqrt()

    def in_one_channel(self) -> "Statistics":
        """Those of items (1, *): of all channels as of a single one."""
        smallest, largest, mean, var = (x.reshape(1, -1) for x in (self.smallest, self.largest, self.mean, self.var))
        counts = None if self.counts is None else self.counts.reshape(1, -1)
        return Statistics(self.count, self.whole, smallest, largest, mean, var, counts)

    def ranges(self) -> tuple[Tensor, Tensor]:
        """The smallest and the largest value of each channel; (C,)."""
        return _by_channel(self.smallest).amin(1), _by_channel(self.largest).amax(1)


def _by_channel(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0] if x.ndim else 1, -1)


def spread(count: int, most: int) -> Tensor:
    """Positions of at most ``most`` of ``count`` items, evenly from the first to the last."""
    return torch.linspace(0, count - 1, min(most, count), dtype=torch.float64, device="cpu").round().long()


def measure(items, index: Tensor | None = None, sizes: Tensor | None = None) -> Statistics:
    """The statistics of items (n, *event), a tensor or what reads one on indexing, or of those at ``index`` only; of
    padded ones, whose ``sizes`` (n,) say how much of each is real, those of the real entries.

    Parts are merged in float64 by the update of Chan, Golub and LeVeque (1983). Raises ValueError that counts the
    items with NaN or infinity.
    """
    index = torch.arange(items.shape[0], device="cpu") if index is None else index
    if sizes is not None:
        return _measure_real(items, index, sizes)
    event, seen, bad, whole = tuple(items.shape[1:]), 0, [], True
    smallest, largest = (torch.full(event, end, dtype=torch.float64, device="cpu") for end in (torch.inf, -torch.inf))
    mean, squares = (torch.zeros(event, dtype=torch.float64, device="cpu") for _ in range(2))
    for rows in index.split(max(1, VALUES_AT_ONCE // max(1, mean.numel()))):
        x = items[rows].cpu().double()
        # What float32 cannot hold counts as infinite.
        bad += rows[~x.float().isfinite().reshape(len(x), -1).all(1)].tolist()
        smallest, largest = torch.minimum(smallest, x.amin(0)), torch.maximum(largest, x.amax(0))
        whole = whole and bool((x == x.round()).all())
        seen += len(x)
        change = x.mean(0) - mean
        mean += change * (len(x) / seen)
        squares += (x - x.mean(0)).square().sum(0) + change.square() * (len(x) * (seen - len(x)) / seen)
    _refuse_bad(bad, len(index))
    return Statistics(len(index), whole, smallest, largest, mean, squares / seen)


def _refuse_bad(bad: Sequence[int], count: int) -> None:
    """Raise ValueError where some of ``count`` items, those at the positions ``bad``, are not finite."""
    if bad:
        raise ValueError(
            f"{len(bad)} of {count} items contain NaN or infinity (first: {bad[0]}): remove or repair them"
        )


def _measure_real(items, index: Tensor, sizes: Tensor) -> Statistics:
    """``measure`` of padded items, in two passes. Dimensions that are real in no item do not count."""
    event = tuple(items.shape[1:])
    counts, total, squares = (torch.zeros(event, dtype=torch.float64, device="cpu") for _ in range(3))
    smallest, largest = (torch.full(event, end, dtype=torch.float64, device="cpu") for end in (torch.inf, -torch.inf))
    parts, bad, whole = index.split(max(1, VALUES_AT_ONCE // max(1, counts.numel()))), [], True
    for rows in parts:
        x = cut(items[rows].cpu().double(), sizes[rows])
        inside = real(sizes[rows], event).expand_as(x)
        bad += rows[~x.float().isfinite().reshape(len(x), -1).all(1)].tolist()
        smallest = torch.minimum(smallest, torch.where(inside, x, torch.inf).amin(0))
        largest = torch.maximum(largest, torch.where(inside, x, -torch.inf).amax(0))
        whole = whole and bool((x == x.round()).all())
        counts, total = counts + inside.sum(0), total + x.sum(0)
    _refuse_bad(bad, len(index))
    mean = total / counts.clamp(min=1)
    for rows in parts:
        squares += cut((items[rows].cpu().double() - mean).square(), sizes[rows]).sum(0)
    return Statistics(len(index), whole, smallest, largest, mean, squares / counts.clamp(min=1), counts)


def feature_moments(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C,), float64, of the features of parts (..., C) over all their other axes, merged as
    in ``measure``. NaN is left out; a feature that is constant has standard deviation 0."""
    count = mean = squares = torch.zeros((), dtype=torch.float64, device="cpu")
    low, high = (torch.tensor(end, dtype=torch.float64, device="cpu") for end in (torch.inf, -torch.inf))
    for part in parts:
        x = part.cpu().double().flatten(0, -2)
        given = ~x.isnan()
        here = given.sum(0).double()
        low = torch.minimum(low, torch.where(given, x, torch.inf).amin(0))
        high = torch.maximum(high, torch.where(given, x, -torch.inf).amax(0))
        middle = x.nansum(0) / here.clamp(min=1)
        total = (count + here).clamp(min=1)
        change = middle - mean
        squares = squares + torch.where(given, (x - middle).square(), 0).sum(0) + change.square() * count * here / total
        mean, count = mean + change * here / total, count + here
    return mean, torch.where(high > low, (squares / count.clamp(min=1)).sqrt(), 0.0)
