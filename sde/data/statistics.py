"""What data are like: range, mean and variance, measured in one pass."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

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

    @property
    def low(self) -> float:
        """The smallest value of all."""
        return self.smallest.min().item()

    @property
    def high(self) -> float:
        """The largest value of all."""
        return self.largest.max().item()

    def channels(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel, the first event axis, over items and all other axes; (C,)."""
        mean, var = _by_channel(self.mean), _by_channel(self.var)
        return mean.mean(1), (var.mean(1) + mean.var(1, correction=0)).sqrt()

    def ranges(self) -> tuple[Tensor, Tensor]:
        """The smallest and the largest value of each channel; (C,)."""
        return _by_channel(self.smallest).amin(1), _by_channel(self.largest).amax(1)


def _by_channel(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0] if x.ndim else 1, -1)


def spread(count: int, most: int) -> Tensor:
    """Positions of at most ``most`` of ``count`` items, evenly from the first to the last."""
    return torch.linspace(0, count - 1, min(most, count), dtype=torch.float64).round().long()


def measure(items, index: Tensor | None = None) -> Statistics:
    """The statistics of items (n, *event), a tensor or what reads one on indexing, or of those at ``index`` only.

    Parts are merged in float64 by the update of Chan, Golub and LeVeque (1983). Raises ValueError that counts the
    items with NaN or infinity.
    """
    index = torch.arange(items.shape[0]) if index is None else index
    event, seen, bad, whole = tuple(items.shape[1:]), 0, [], True
    smallest, largest = (torch.full(event, end, dtype=torch.float64) for end in (torch.inf, -torch.inf))
    mean, squares = torch.zeros(event, dtype=torch.float64), torch.zeros(event, dtype=torch.float64)
    for rows in index.split(max(1, VALUES_AT_ONCE // max(1, mean.numel()))):
        x = items[rows].cpu().double()
        bad += rows[~x.isfinite().reshape(len(x), -1).all(1)].tolist()
        smallest, largest = torch.minimum(smallest, x.amin(0)), torch.maximum(largest, x.amax(0))
        whole = whole and bool((x == x.round()).all())
        seen += len(x)
        change = x.mean(0) - mean
        mean += change * (len(x) / seen)
        squares += (x - x.mean(0)).square().sum(0) + change.square() * (len(x) * (seen - len(x)) / seen)
    if bad:
        raise ValueError(
            f"{len(bad)} of {len(index)} items contain NaN or infinity (first: {bad[0]}): remove or repair them"
        )
    return Statistics(len(index), whole, smallest, largest, mean, squares / seen)


def feature_moments(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C,), float64, of the features of parts (..., C) over all their other axes. NaN is
    left out; a feature that is constant to the precision of float32 has standard deviation 0."""
    count = total = squares = torch.zeros(())
    for part in parts:
        x = part.cpu().double().flatten(0, -2)
        count = count + (~x.isnan()).sum(0)
        total, squares = total + x.nansum(0), squares + x.square().nansum(0)
    mean = total / count.clamp(min=1)
    std = (squares / count.clamp(min=1) - mean.square()).clamp(min=0).sqrt()
    return mean, torch.where(std > torch.finfo(torch.float32).eps * mean.abs(), std, 0.0)
