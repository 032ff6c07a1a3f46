"""Condition noise of a data set: the levels of noise that its conditions have in training, and elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sde.condition.noise import NOISED, noised_kind, with_noise
from sde.condition.tree import Condition
from sde.data.dataset import Dataset
from sde.data.draws import per_item


@dataclass(frozen=True)
class ConditionNoise:
    """Noise on the conditions of a ``kind``, of levels from ``low`` to ``high``, in units of the standard deviations of
    the features in ``training`` items, a Dataset."""

    kind: str
    low: float
    high: float
    training: Any

    @cached_property
    def scale(self) -> Tensor:
        """What a level of 1 is, (features,): as in the model, 1 where a feature is constant."""
        _, std = self.training.condition_moments[self.kind]
        return torch.where(std > 0, std, 1.0)

    @property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (1,) of the levels of training, which are uniform."""
        mean, std = (self.low + self.high) / 2, (self.high - self.low) / 12**0.5
        return torch.tensor([mean], dtype=torch.float64), torch.tensor([std], dtype=torch.float64)

    def __call__(self, cond: Condition, index: Tensor, seeds: Tensor | None) -> Condition:
        """The conditions of items at positions (B,) with noise: of uniform levels by the items' ``seeds`` (B,), or
        without them all of the lowest, by their positions."""
        count, shape = len(index), cond[self.kind].shape[1:]
        if seeds is None:
            level = torch.full((count,), self.low, dtype=torch.float64, device="cpu")
            n = per_item(torch.randn, index, shape) if self.low else torch.zeros(count, *shape, device="cpu")
        else:
            uniform = per_item(torch.rand, seeds + 5, ())
            level = self.low + (self.high - self.low) * uniform.double()
            n = per_item(torch.randn, seeds + 7, shape)
        return with_noise(cond, self.kind, level, self.scale, n)


def with_condition_noise(parts: tuple[Dataset, Dataset], levels: Sequence[float]) -> tuple[Dataset, Dataset]:
    """Both parts of the data with noise of ``levels``, the lowest and the highest, on their condition images, or where
    they have none on their vectors. Raises ValueError for data that have neither, or are padded, and for other levels
    than two numbers from 0, the second larger."""
    train, test = parts
    key = f"condition_noise = {tuple(levels)}"
    if len(levels) != 2 or not 0 <= levels[0] < levels[1] < float("inf"):
        raise ValueError(f"{key}: needs the lowest and the highest level, as (0, 0.5), or () for none")
    kind = noised_kind(train.conditions)
    if kind is None:
        kinds = " or ".join(NOISED)
        raise ValueError(f"{key}: the data have no condition {kinds} for it; add superres to `conditions`")
    if train.sizes is not None:
        raise ValueError(f"{key}: the items are of unequal size, and noise would be on their padding too; leave it out")
    noise = ConditionNoise(kind, float(levels[0]), float(levels[1]), train)
    return replace(train, condition_noise=noise), replace(test, condition_noise=noise)
