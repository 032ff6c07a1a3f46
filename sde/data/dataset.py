"""A dataset: items in data units, their conditions, and the transform into model units."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sde.condition.text.base import TextEncoder
from sde.condition.tree import CONDITION_NOISE, Condition, as_labels, check_labels, feature_axis
from sde.data.array_files import ArrayFile
from sde.data.block_means import BlockMeans
from sde.data.caption_rows import CaptionRows, rows_of_captions
from sde.data.codes import PosteriorCodes, coded_shape
from sde.data.images import ImageFiles
from sde.data.sizes import check_sizes, cut
from sde.data.statistics import Statistics, feature_moments, measure, spread
from sde.data.transform import Transform, TransformLike
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
    what each item is coupled with in training (``sde.data.pairs``), or None: drawn anew each time. ``codes``, of a
    learned transform, are the posteriors of all items as ``PosteriorCodes`` has them, or None: computed anew each
    time. ``captions`` are texts of the items, of which ``with_text`` makes conditions, or None. Raises ValueError for
    integers without levels, for labels and sizes out of range, for padded items of a
    learned transform, and for other numbers of labels, sizes, conditions, noises or codes than items.
    """

    items: Items
    labels: Tensor | None
    num_classes: int | None
    transform: TransformLike
    conditions: dict[str, Tensor | CaptionRows | Callable[[Tensor], Tensor]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    sizes: Tensor | None = None
    dequantized: bool = True
    noise: Tensor | None = None
    codes: Tensor | None = None
    captions: Sequence[str] | None = None
    text: TextEncoder | None = None
    """What made the conditions that are of the captions."""
    condition_noise: Any = None
    """Noise on the conditions, a ``ConditionNoise``, or None."""

    def __post_init__(self) -> None:
        if isinstance(self.items, np.ndarray | list | tuple):
            self.items = as_tensor(self.items)
        for name in ("labels", "sizes"):
            held = getattr(self, name)
            setattr(self, name, held if held is None else as_tensor(held))
        self.conditions = {
            kind: c if callable(c) or isinstance(c, CaptionRows) else as_tensor(c)
            for kind, c in self.conditions.items()
        }
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
            if self.transform.learned:
                raise ValueError(
                    "the items are padded to one shape, and an autoencoder would encode the padding too: take items of "
                    "equal size, or the data without an autoencoder"
                )
        # A learned transform takes items of some shapes alone.
        inner = self.inner_shape
        for name, held, wanted in (("noise has", self.noise, inner), ("codes have", self.codes, coded_shape(inner))):
            wanted = (len(self), *wanted)
            if held is not None and tuple(held.shape) != wanted:
                raise ValueError(
                    f"the {name} shape {tuple(held.shape)}: needs {wanted}, one row per item, in model units"
                )
        if self.captions is not None and len(self.captions) != len(self):
            raise ValueError(f"there are {len(self.captions)} captions for {len(self)} items: needs one per item")
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
        """Mean and variance of each dimension in model units, float64 (*inner), from ``statistics``; of a learned
        transform those of draws of the posterior, measured in model units over as many items."""
        if isinstance(self.transform, Transform):
            return self.transform.moments(self.statistics.mean, self.statistics.var, self.dequantized)
        mean, std = self._codes.mean.chunk(2)
        spread_of_mean, spread_of_std = self._codes.var.chunk(2)
        return mean, spread_of_mean + spread_of_std + std.square()

    @property
    def inner_ends(self) -> Tensor:
        """The smallest and the largest value of each dimension in model units, (2, *inner), over as many items as
        ``statistics`` takes; the mean of a dimension that is real in none. Of a learned transform, those of posteriors'
        means."""
        statistics = self._codes if self.transform.learned else self.statistics
        known = torch.ones(()) if statistics.counts is None else statistics.counts
        ends = [torch.where(known > 0, end, statistics.mean) for end in (statistics.smallest, statistics.largest)]
        if self.transform.learned:
            return torch.stack([end.chunk(2)[0] for end in ends])
        return self.transform.encode(torch.stack(ends))

    @cached_property
    def _codes(self) -> Statistics:
        """Of the posteriors under a learned transform, mean and standard deviation one behind the other."""
        return measure(PosteriorCodes(self.items, self.transform), self.measured)

    @property
    def sigma_data(self) -> float:
        """Root mean square of the data in model units."""
        mean, var = self.moments
        squares, counts = mean.square() + var, self.statistics.counts
        if counts is not None:
            return ((squares * counts).sum() / counts.sum()).sqrt().item()
        return squares.mean().sqrt().item()

    @property
    def inner_shape(self) -> tuple[int, ...]:
        """Shape of an item in model units."""
        return self.transform.inner_shape(self.event_shape)

    @property
    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape, without rows, of each of the conditions."""
        first = torch.zeros(1, dtype=torch.long, device="cpu")
        found = {kind: tuple(self._condition(kind, first).shape[1:]) for kind in self.conditions}
        return found if self.condition_noise is None else found | {CONDITION_NOISE: (1,)}

    @cached_property
    def condition_moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and standard deviation of each feature of the conditions, float64, over as many items as ``statistics``
        takes; null is left out, and so is noise on them, of whose level they are those of training."""
        parts = self.measured.split(256)
        found = {
            kind: feature_moments(self._condition(kind, part).movedim(feature_axis(kind), -1) for part in parts)
            for kind in self.conditions
        }
        return found if self.condition_noise is None else found | {CONDITION_NOISE: self.condition_noise.moments}

    def _condition(self, kind: str, index: Tensor) -> Tensor:
        held = self.conditions[kind]
        if isinstance(held, Tensor | CaptionRows):
            return held[index]
        return held(self._items(index, self.sizes_of(index)))

    def _items(self, index: Tensor, sizes: Tensor | None) -> Tensor:
        return cut(self.items[index].to(self.transform.dtype), sizes)

    def batch(self, index: Tensor, seeds: Tensor | None = None) -> tuple[Tensor, Condition | None]:
        """Items (B, *event) in data units, with 0 where they are padded, and their conditions, at positions (B,) that
        are on the CPU: None where there are none. Items are float32, or float64 where the transform is ``far``. Where
        there is noise on the conditions, its levels are those of training, drawn by ``seeds`` (B,), or without them the
        lowest.

        Where the items are on a device, so is what is returned, and the CPU does not wait for it.
        """
        sizes = self.sizes_of(index)
        if isinstance(self.items, Tensor):
            index = send(index, self.items.device)
        x = self._items(index, sizes)
        return x, self._told(index, x, seeds)

    def coded_batch(self, index: Tensor, seeds: Tensor | None = None) -> tuple[Tensor, Condition | None]:
        """As ``batch``, with the ``codes`` (B, 2 c, *rest) of the items in place of the items, which are read where a
        condition is computed of them alone."""
        codes: Any = self.codes
        x = self._items(index, None) if any(callable(held) for held in self.conditions.values()) else None
        index = send(index, codes.device)
        return codes[index], self._told(index, x, seeds)

    def _told(self, index: Tensor, x: Any, seeds: Tensor | None) -> Condition | None:
        """The conditions at positions (B,), for items x (B, *event); None where there are none."""
        tree = {} if self.labels is None else {"labels": self.labels[index]}
        for kind, held in self.conditions.items():
            tree[kind] = held[index] if isinstance(held, Tensor | CaptionRows) else held(x)
        if self.condition_noise is not None:
            tree = self.condition_noise(tree, index, seeds)
        return tree or None

    def with_text(self, encoder: TextEncoder) -> "Dataset":
        """The same data with what an encoder makes of the captions among the conditions. Raises ValueError for data
        without captions, and with conditions of that kind already."""
        if self.captions is None:
            raise ValueError("the data have no captions to make conditions of")
        both = [kind for kind in encoder.shapes if kind in self.conditions]
        if both:
            raise ValueError(
                f"captions and the data both give the condition {both[0]!r}: leave it out of one of them, of captions "
                "by `outputs`"
            )
        rows = rows_of_captions(encoder, self.captions)
        return replace(self, conditions={**self.conditions, **rows}, text=encoder)

    def sizes_of(self, index: Tensor) -> Tensor | None:
        """The sizes (B,) of items at positions (B,), on the CPU; None where items are real as a whole."""
        return None if self.sizes is None else self.sizes[index.cpu()]

    def to(self, device: torch.device, limit: int | None = None) -> "Dataset":
        """The same data with items, labels and conditions on a device, if the items are a tensor that it can hold and
        they take at most ``limit`` bytes, by default RESIDENT_SHARE of its free memory; or else these data as they
        are. Where there are codes they go there in place of the items."""
        main = "items" if self.codes is None else "codes"
        first, held = getattr(self, main), {kind: c for kind, c in self.conditions.items() if isinstance(c, Tensor)}
        if not (isinstance(first, Tensor) and all(fits(c, device) for c in (first, *held.values()))):
            return self
        if first.device.type != device.type:
            limit = _resident_bytes(device) if limit is None else limit
            if sum(c.nbytes for c in (first, *held.values())) > limit:
                return self
        moved = copy.copy(self)
        setattr(moved, main, first.to(device))
        moved.labels = None if self.labels is None else self.labels.to(device)
        moved.conditions = self.conditions | {kind: c.to(device) for kind, c in held.items()}
        return moved
