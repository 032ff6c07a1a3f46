"""Power: the least that a metric tells of real items that are spoilt by known amounts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from score_sde.evaluation.perturbations import LOSS, LOST, PERTURBATIONS, without_a_mode
from score_sde.metrics.metric import METRICS
from score_sde.metrics.splits import DIVISIONS, Division, Splits, rows_of
from sde.data import Dataset

TRIALS = (DIVISIONS, DIVISIONS + 1)
"""Splits, other than those of the reference, in each of which what is told must be told."""

Power = dict[str, float | None]
"""By perturbation the least amount that is told, or None where the most is not."""


@dataclass(frozen=True)
class RealItems:
    """The ``real`` items and the ``others`` by their features (r, d) and (o, d), and where they are: a data set and
    positions in it, for either. ``features`` makes such features (n, d) of items (n, *event) in data units."""

    real: Tensor
    others: Tensor
    places: tuple[tuple[Dataset, Tensor], tuple[Dataset, Tensor]]
    features: Callable[[Tensor], Tensor]

    def batch(self, index: Tensor) -> Tensor:
        """The items at positions among both (n, *event), in data units, on the CPU."""
        (data, held), (other, like) = self.places
        found, first = torch.empty(len(index), *data.event_shape, dtype=data.transform.dtype), index < len(held)
        for part, rows, own in ((data, first, held[index[first]]), (other, ~first, like[index[~first] - len(held)])):
            if len(own):
                found[rows] = part.batch(own)[0].cpu()
        return found

    def rows(self, index: Tensor) -> Tensor:
        """The features at positions among both."""
        return rows_of(self.real, self.others, index)

    def spoilt(self, index: Tensor, name: str, amount: float, number: int) -> Tensor:
        """The features of the items at these positions after a perturbation."""
        generator, transform = torch.Generator().manual_seed(number), self.places[0][0].transform.outer
        x = transform.encode(transform.dequantize(self.batch(index), 0.5))
        x = PERTURBATIONS[name].function(x, amount, generator)
        return self.features(transform.quantize(transform.decode(x)))


def measure_power(
    items: RealItems, splits: Mapping[str, Splits], division: Division, seed: int = 0
) -> dict[str, Power]:
    """``Power`` by metric, for the keys of METRICS in ``splits``: real items spoilt stand in the samples' place in
    every trial, from the most on, as long as they are told."""
    if not splits:
        return {}
    axes = len(items.places[0][0].event_shape)
    trials = [division.positions(len(items.real), len(items.others), number, seed) for number in TRIALS]
    held = [items.rows(m) for _, m, _ in trials]
    found: dict[str, Power] = {name: {} for name in splits}

    def spoilt(name: str, i: int, amount: float) -> Tensor:
        return items.spoilt(trials[i][0], name, amount, i)

    for name, one in PERTURBATIONS.items():
        if axes >= one.axes:
            _descend(found, splits, held, name, one.amounts, partial(spoilt, name))
    clean = [(items.rows(n), items.rows(spare[: len(n)])) for n, _, spare in trials]
    _descend(found, splits, held, LOST, LOSS, lambda i, amount: without_a_mode(
        *clean[i], amount, torch.Generator().manual_seed(i)))  # fmt: skip
    return found


def _descend(
    found: dict[str, Power],
    splits: Mapping[str, Splits],
    held: Sequence[Tensor],
    name: str,
    amounts: Sequence[float],
    spoilt: Callable[[int, float], Tensor],
) -> None:
    """Write into ``found`` the least amount that each metric tells, from the most downwards."""
    left = list(splits)
    for metric in left:
        found[metric][name] = None
    for amount in reversed(amounts):
        if not left:
            return
        parts = [spoilt(i, amount) for i in range(len(held))]
        left = [
            metric
            for metric in left
            if all(_told(METRICS[metric], splits[metric], x, y) for x, y in zip(parts, held, strict=True))
        ]
        for metric in left:
            found[metric][name] = amount


def _told(metric: Callable[[Tensor, Tensor], float], splits: Splits, x: Tensor, y: Tensor) -> bool:
    return splits.compared(metric(x, y)) != 0
