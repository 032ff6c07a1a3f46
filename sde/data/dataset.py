"""A dataset: items in data units, their conditions, and the transform into model units."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sde.condition.tree import Condition, as_labels, check_labels, feature_axis
from sde.data.array_files import ArrayFile
from sde.data.block_means import BlockMeans
from sde.data.images import ImageFiles
from sde.data.sizes import check_sizes, cut
from sde.data.statistics import Statistics, feature_moments, measure, spread
from sde.data.transform import TransformLike
from sde.device import as_tensor, fits, free_memory, send

Items = Tensor | ArrayFile | ImageFiles | BlockMeans


RESIDENT_SHARE = 0.25
"""Of the memory that is free on a device, how much a data set may take that stays there: training needs the rest."""

RESIDENT_BYTES = 2**30
"""What it may take on a device that does not tell its free memory."""


def _resident_bytes(device: torch.device) -> int:
    free = free_memory(device)
    return RESIDENT_BYTES if free is None else int(RESIDENT_SHARE * free)


@dataclass
class Dataset:
    """``items`` (n, *event), integers (quantized) or floats; ``labels`` (n,) in [0, num_classes), -1 for no class, of
    any type of integers or booleans, or None.

    ``items`` is a tensor, or anything with ``shape``, ``dtype`` and indexing by a tensor of positions that returns one,
    such as files read on demand. ``conditions`` has, by kind, the vectors, images or sequences of the items, a float
    tensor with a row per item and NaN for null, or a function that computes them of items (B, *event). ``about`` has
    the plain values, as of JSON, that writing an item needs, such as a sample rate. ``sizes`` (n,), integers, or None,
    say how much of a padded item is real (``sde.data.sizes``). Quantized items are trained with uniform noise in their
    cells unless ``dequantized`` is False, when they are the cells' middles. ``noise`` (n, *inner), in model units, is
    what each item is coupled with in training (``sde.data.pairs``), or None: drawn anew each time. Raises ValueError
    for integers without levels, for labels and sizes out of range, and for other numbers of labels, sizes, conditions
    or noises than items.
    """

    items: Items
    labels: Tensor | None
    num_classes: int | None
    transform: TransformLike
    conditions: dict[str, Tensor | Callable[[Tensor], Tensor]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    sizes: Tensor | None = None
    dequantized: bool = True
    noise: Tensor | None = None

    def __post_init__(self) -> None:
        if isinstance(self.items, np.ndarray | list | tuple):
            self.items = as_tensor(self.items)
        for name in ("labels", "sizes"):
            held = getattr(self, name)
            setattr(self, name, held if held is None else as_tensor(held))
        self.conditions = {kind: c if callable(c) else as_tensor(c) for kind, c in self.conditions.items()}
        if not (self.items.dtype.is_floating_point or self.transform.num_levels):
            raise ValueError(
                f"num_levels = 0, but the items are integers ({self.items.dtype}) from "
                f"{self.statistics.low:g} to {self.statistics.high:g}: set it to the number of levels of quantized "
                "data, or store them as floats"
            )
        if self.labels is not None:
            self.labels = as_labels(self.labels)
            check_labels(self.labels, self.num_classes)
            if len(self.labels) != len(self):
                raise ValueError(f"there are {len(self.labels)} labels for {len(self)} items: needs one per item")
        if self.sizes is not None:
            check_sizes(self.sizes, len(self), self.event_shape)
        if self.noise is not None:
            inner = (len(self), *self.transform.inner_shape(self.event_shape))
            if tuple(self.noise.shape) != inner:
                raise ValueError(
                    f"the noise has shape {tuple(self.noise.shape)}: needs {inner}, one row per item, in model units"
                )
        for kind, held in self.conditions.items():
            if isinstance(held, Tensor) and len(held) != len(self):
                raise ValueError(f"{kind!r} has {len(held)} rows for {len(self)} items: needs one per item")

    def __len__(self) -> int:
        return self.items.shape[0]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of an item."""
        return tuple(self.items.shape[1:])

    @property
    def class_counts(self) -> list[int] | None:
        """How many items each class has, or None where there are no labels; items of no class do not count."""
        if self.labels is None or self.num_classes is None:
            return None
        labels = self.labels.cpu()
        return labels[labels >= 0].bincount(minlength=self.num_classes).tolist()

    @property
    def measured(self) -> Tensor:
        """Positions of up to 10,000 items spread over the set, 1000 where each has to be read or decoded."""
        return spread(len(self), 10_000 if isinstance(self.items, Tensor | ArrayFile) else 1_000)

    @cached_property
    def statistics(self) -> Statistics:
        """Of up to 10,000 items spread over the set, 1000 where each has to be decoded. Raises as ``measure`` does."""
        return measure(self.items, self.measured, self.sizes)

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each dimension in model units, float64 (*event), from ``statistics``."""
        return self.transform.moments(self.statistics.mean, self.statistics.var, self.dequantized)

    @property
    def sigma_data(self) -> float:
        """Root mean square of the data in model units."""
        mean, var = self.moments
        squares, counts = mean.square() + var, self.statistics.counts
        if counts is not None:
            return ((squares * counts).sum() / counts.sum()).sqrt().item()
        return squares.mean().sqrt().item()

    @property
    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape, without rows, of each of the conditions."""
        first = torch.zeros(1, dtype=torch.long, device="cpu")
        return {kind: tuple(self._condition(kind, first).shape[1:]) for kind in self.conditions}

    @cached_property
    def condition_moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and standard deviation of each feature of the conditions, float64, over as many items as ``statistics``
        takes; null is left out."""
        parts = self.measured.split(256)
        return {
            kind: feature_moments(self._condition(kind, part).movedim(feature_axis(kind), -1) for part in parts)
            for kind in self.conditions
        }

    def _condition(self, kind: str, index: Tensor) -> Tensor:
        held = self.conditions[kind]
        return held[index] if isinstance(held, Tensor) else held(self._items(index, self.sizes_of(index)))

    def _items(self, index: Tensor, sizes: Tensor | None) -> Tensor:
        return cut(self.items[index].to(self.transform.dtype), sizes)

    def batch(self, index: Tensor) -> tuple[Tensor, Condition | None]:
        """Items (B, *event) in data units, with 0 where they are padded, and their conditions, at positions (B,) that
        are on the CPU: None where there are none. Items are float32, or float64 where the transform is ``far``.

        Where the items are on a device, so is what is returned, and the CPU does not wait for it.
        """
        sizes = self.sizes_of(index)
        if isinstance(self.items, Tensor):
            index = send(index, self.items.device)
        x = self._items(index, sizes)
        tree = {} if self.labels is None else {"labels": self.labels[index]}
        for kind, held in self.conditions.items():
            tree[kind] = held[index] if isinstance(held, Tensor) else held(x)
        return x, tree or None

    def sizes_of(self, index: Tensor) -> Tensor | None:
        """The sizes (B,) of items at positions (B,), on the CPU; None where items are real as a whole."""
        return None if self.sizes is None else self.sizes[index.cpu()]

    def to(self, device: torch.device, limit: int | None = None) -> "Dataset":
        """The same data with items, labels and conditions on a device, if the items are a tensor that it can hold and
        they take at most ``limit`` bytes, by default RESIDENT_SHARE of its free memory; or else these data as they
        are."""
        held = {kind: c for kind, c in self.conditions.items() if isinstance(c, Tensor)}
        if not (isinstance(self.items, Tensor) and all(fits(c, device) for c in (self.items, *held.values()))):
            return self
        if self.items.device.type != device.type:
            limit = _resident_bytes(device) if limit is None else limit
            if sum(c.nbytes for c in (self.items, *held.values())) > limit:
                return self
        moved = copy.copy(self)
        moved.items, moved.labels = self.items.to(device), None if self.labels is None else self.labels.to(device)
        moved.conditions = self.conditions | {kind: c.to(device) for kind, c in held.items()}
        return moved
