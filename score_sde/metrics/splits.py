"""Splits: a metric of real items against real items, over random divisions of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.stats import t
from torch import Tensor

from score_sde.metrics.streams import SPLITS

DIVISIONS = 24
"""Random splits of the real items that a metric is taken of."""
LEVEL = 0.01
"""The share of values of real items that are taken for others, both sides, where the values are normal."""


@dataclass(frozen=True)
class Division:
    """How many items stand in the place of the samples, ``n``, and how many they are held against, ``m``."""

    n: int
    m: int

    @classmethod
    def of(cls, samples: int, real: int, others: int) -> "Division":
        """The sizes of both sets, or what of them two parts of the ``real`` and the ``others`` can stand in for."""
        m = min(real, (real + others) // 2)
        return cls(min(samples, real + others - m), m)

    def positions(self, real: int, others: int, number: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Random positions (n,) and (m,), and those that are left, of different items among ``real`` ones and then
        ``others`` together; those of split ``number``."""
        order = np.random.default_rng((seed, SPLITS, number)).permutation(real + others)
        n, m, spare = np.split(order, [self.n, self.n + self.m])
        return torch.from_numpy(n), torch.from_numpy(m), torch.from_numpy(spare)


def rows_of(real: Tensor, others: Tensor, index: Tensor) -> Tensor:
    """The features at positions among real (r, d) and then others (o, d) together."""
    rows, first = real.new_empty((len(index), *real.shape[1:])), index < len(real)
    rows[first], rows[~first] = real[index[first]], others[index[~first] - len(real)]
    return rows


@dataclass(frozen=True)
class Splits:
    """The ``values`` of a metric of one part of the real items against another, over random splits: what a perfect
    model scores. ``between`` is that of the two sets as they are, which differs from the values where the sets do;
    ``least`` the smallest difference that there can be, 0 for none."""

    values: tuple[float, ...]
    between: float
    least: float = 0.0

    @classmethod
    def measure(
        cls, metric: Callable[[Tensor, Tensor], float], real: Tensor, others: Tensor, division: Division,
        *, least: float = 0.0, count: int = DIVISIONS, seed: int = 0,
    ) -> "Splits":  # fmt: skip
        """Of features (r, d) of real items, and (o, d) of other ones."""

        def value(number: int) -> float:
            n, m, _ = division.positions(len(real), len(others), number, seed)
            return metric(rows_of(real, others, n), rows_of(real, others, m))

        found = [value(number) for number in range(count)]
        # The sets as they are, at the same sizes.
        order = (np.random.default_rng((seed, SPLITS)).permutation(size) for size in (len(others), len(real)))
        others, real = (part[torch.from_numpy(index)] for part, index in zip((others, real), order, strict=True))
        return cls(tuple(found), metric(others[: division.n], real[: division.m]), least)

    @cached_property
    def mean(self) -> float:
        """The mean of the values."""
        return math.fsum(self.values) / len(self.values)

    @cached_property
    def spread(self) -> float:
        """Their standard deviation."""
        squares = math.fsum((value - self.mean) ** 2 for value in self.values)
        return math.sqrt(squares / (len(self.values) - 1))

    @cached_property
    def limits(self) -> tuple[float, float]:
        """The ends between which a further value of real items lies: mean -+ t sqrt(1 + 1/k) spread of k values, t
        Student's quantile, and no less than all of them; at most LEVEL of them lie outside where they are normal."""
        count = len(self.values)
        reach = float(t.ppf(1 - LEVEL / 2, count - 1)) * math.sqrt(1 + 1 / count) * max(self.spread, self.least)
        return min(*self.values, self.mean - reach), max(*self.values, self.mean + reach)

    @property
    def differ(self) -> bool:
        """Whether the two sets of real items themselves are told apart."""
        return bool(self._outside(self.between))

    def record(self) -> dict[str, Any]:
        """As plain values."""
        low, high = self.limits
        found = {"value": self.mean, "spread": self.spread, "low": low, "high": high, "values": list(self.values)}
        return found | {"between": self.between, "differ": self.differ}

    def compared(self, value: float) -> int:
        """1 for a value above those of real items, -1 below them, and 0 where it may be one of them, or is no further
        away than the two sets of real items are from each other."""
        side = self._outside(value)
        return side if side * (value - self.between) > 0 else 0

    def _outside(self, value: float) -> int:
        low, high = self.limits
        # Sums in another order differ in their last digits.
        slack = 1e-9 * max(abs(low), abs(high))
        return (value > high + slack) - (value < low - slack)
