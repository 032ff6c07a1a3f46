"""A dataset: items in data units, optional labels, and the transform into model units."""

import copy
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sde.condition import check_labels
from sde.data.arrays import ArrayFile
from sde.data.images import ImageFiles
from sde.statistics import Statistics, measure, spread
from sde.transfer import send
from sde.transform import Transform

Items = Tensor | ArrayFile | ImageFiles


@dataclass
class Dataset:
    """``items`` (n, *event), integers (quantised) or floats; ``labels`` (n,) in [0, num_classes), or None.

    ``items`` is a tensor, or anything with ``shape``, ``dtype`` and indexing by a tensor of positions that returns one,
    such as files read on demand. Raises ValueError for integers without levels, and for labels out of range.
    """

    items: Items
    labels: Tensor | None
    num_classes: int | None
    transform: Transform

    def __post_init__(self) -> None:
        if not (self.items.dtype.is_floating_point or self.transform.levels):
            raise ValueError(
                f"config.data.levels = 0, but the items are integers ({self.items.dtype}) from "
                f"{self.statistics.low:g} to {self.statistics.high:g}: set it to the number of levels of quantised "
                "data, or store them as floats"
            )
        if self.labels is not None:
            check_labels(self.labels, self.num_classes)
            if len(self.labels) != len(self):
                raise ValueError(f"there are {len(self.labels)} labels for {len(self)} items: needs one an item")

    def __len__(self) -> int:
        return self.items.shape[0]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of an item."""
        return tuple(self.items.shape[1:])

    @cached_property
    def statistics(self) -> Statistics:
        """Of up to 10,000 items spread over the set, 1000 where each has to be decoded. Raises as ``measure`` does."""
        return measure(self.items, spread(len(self), 1_000 if isinstance(self.items, ImageFiles) else 10_000))

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each dimension in model units, float64 (*event), from ``statistics``."""
        return self.transform.moments(self.statistics.mean, self.statistics.var)

    @property
    def sigma_data(self) -> float:
        """Root mean square of the data in model units."""
        mean, var = self.moments
        return (mean.square() + var).mean().sqrt().item()

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Items (B, *event) as float32 in data units, and their labels (B,), at positions (B,) that are on the CPU.

        Where the items are on a device, so is what is returned, and the CPU does not wait for it.
        """
        if isinstance(self.items, Tensor):
            index = send(index, self.items.device)
        return self.items[index].to(torch.float32), None if self.labels is None else self.labels[index]

    def to(self, device: torch.device, limit: int = 2**30) -> "Dataset":
        """The same data with items and labels on a device, if the items are a tensor of at most ``limit`` bytes; or
        else these data as they are."""
        if not isinstance(self.items, Tensor) or self.items.nbytes > limit:
            return self
        moved = copy.copy(self)
        moved.items, moved.labels = self.items.to(device), None if self.labels is None else self.labels.to(device)
        return moved
