"""The trade-off of accuracy against diversity of samples asked for by class, with the errors that chance leaves."""

from dataclasses import dataclass

import torch
from torch import Tensor

RESAMPLINGS = 500


@dataclass(frozen=True)
class Tradeoff:
    """The share of items that a judge takes for their class, their mean distance within it, and standard errors."""

    accuracy: float
    accuracy_stderr: float
    distance: float
    distance_stderr: float


def tradeoff(x: Tensor, labels: Tensor, found: Tensor) -> Tradeoff:
    """Items x (n, *event) of classes ``labels`` (n,), which a judge takes for the classes ``found`` (n,). Over the n_y
    items of a class y, with d dimensions,

        accuracy_y = sum_i [found_i = y] / n_y,    distance_y = sum_{i != j} |x_i - x_j| / sqrt(d) / (n_y (n_y - 1)),

    the second of which estimates E |x - x'| / sqrt(d) of two independent items without bias at any n_y; the results are
    the means over the classes, each counting alike. Standard errors are those of 500 bootstrap resamplings of the items
    within each class (Efron 1979), in which an item is not paired with itself. Raises ValueError for a class that has a
    single item.
    """
    generator = torch.Generator().manual_seed(0)
    values, draws = [], []
    for label in labels.unique():
        rows = (labels == label).nonzero().squeeze(1)
        count = len(rows)
        if count < 2:
            raise ValueError(f"class {int(label)} has a single item: its diversity needs two")
        hits, vectors = (found[rows] == label).double(), x[rows].double().flatten(1)
        distances = torch.cdist(vectors, vectors) / vectors.shape[1] ** 0.5
        mean = distances.sum() / (count * (count - 1))
        index = torch.randint(count, (RESAMPLINGS, count), generator=generator)
        times = torch.zeros(RESAMPLINGS, count, dtype=torch.float64)
        times.scatter_add_(1, index, torch.ones(1, 1, dtype=torch.float64).expand_as(times))
        pairs = count**2 - times.square().sum(1)
        resampled = torch.where(pairs > 0, ((times @ distances) * times).sum(1) / pairs.clamp(min=1), mean)
        values.append(torch.stack([hits.mean(), mean]))
        draws.append(torch.stack([times @ hits / count, resampled], 1))
    accuracy, distance = torch.stack(values).mean(0).tolist()
    accuracy_stderr, distance_stderr = torch.stack(draws).mean(0).std(0).tolist()
    return Tradeoff(accuracy, accuracy_stderr, distance, distance_stderr)
