"""Outliers: values so far from all others that they alone set the scale of their channel."""

from typing import NamedTuple

import torch

from sde.data.dataset import Dataset
from sde.data.statistics import VALUES_AT_ONCE

MAX_OUTLIERS = 10
"""Values of a channel that may be outliers together."""

MIN_VALUES = 20
"""Values that a channel needs for a judgement."""

OUTLIER_GAP = 30.0
"""An outlier lies more than this many times as far from the median as every other value. Of a Cauchy distribution the
largest value does once in 30 times, of one with a variance hardly ever."""


class Outliers(NamedTuple):
    """``number`` values of a channel, the farthest of them ``value``, that lie more than OUTLIER_GAP times as far from
    its median as all others and carry more than half of its variance."""

    channel: int
    number: int
    value: float


def outliers(data: Dataset) -> list[Outliers]:
    """The outliers of the channels that have some, among the items that ``data.statistics`` measured. Quantized data
    have none, and neither has a channel of which all but MAX_OUTLIERS values are the same, such as a sparse one."""
    statistics = data.statistics
    (mean, std), (low, high) = statistics.channels(), statistics.ranges()
    values = statistics.count * statistics.mean.numel() // len(mean)
    squares = values * std.square()
    # As many values as may be outliers together have at least this much of the variance each.
    suspects = (torch.maximum(high - mean, mean - low).square() > squares / (2 * MAX_OUTLIERS)).nonzero().flatten()
    if data.transform.num_levels or values < MIN_VALUES or not len(suspects):
        return []
    median, farthest = torch.empty(0, device="cpu"), torch.empty(len(suspects), 0, dtype=torch.float64, device="cpu")
    for rows in data.measured.split(max(1, VALUES_AT_ONCE // statistics.mean.numel())):
        x = data.items[rows].cpu().double().reshape(len(rows), len(mean), -1)[:, suspects].transpose(0, 1).flatten(1)
        # Of the first items, as only its order of magnitude counts.
        median = x.median(1, keepdim=True).values if not median.numel() else median
        farthest = torch.cat([farthest, x - median], 1)
        largest = farthest.abs().topk(min(MAX_OUTLIERS + 1, farthest.shape[1]), 1).indices
        farthest = farthest.gather(1, largest)
    distance = farthest.abs()
    found = []
    for row, channel in enumerate(suspects.tolist()):
        if distance[row, MAX_OUTLIERS] == 0:
            continue
        for number in range(1, min(MAX_OUTLIERS, values // 10) + 1):
            apart = distance[row, number - 1] > OUTLIER_GAP * distance[row, number]
            if apart and distance[row, :number].square().sum() > squares[channel] / 2:
                found.append(Outliers(channel, number, (farthest[row, 0] + median[row, 0]).item()))
                break
    return found
