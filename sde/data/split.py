"""The split of a data set: a part to train on, and one that is held out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sde.data.dataset import Dataset, Items
from sde.data.statistics import measure
from sde.data.transform import Transform

Split = tuple[Dataset, Dataset]
"""The training and the held-out part."""


def split(
    items: Items,
    labels: Tensor | None,
    transform: Transform | None,
    test_fraction: float,
    conditions: dict[str, Tensor] | None = None,
    about: dict[str, Any] | None = None,
    sizes: Tensor | None = None,
    groups: Tensor | None = None,
    captions: Sequence[str] | None = None,
) -> Split:
    """A fixed random part of the items is held out, none of a class that would be left without any. Without a
    ``transform`` items are standardized by those to train on. Items of one number in ``groups`` (n,) are on one side:
    groups are held out whole, until they have as many items."""
    count = items.shape[0]
    held_out = round(count * test_fraction)
    if not 1 <= held_out < count:
        raise ValueError(f"test_fraction = {test_fraction} of {count} items is {held_out}: both parts need one")
    groups = torch.arange(count) if groups is None else groups.unique(return_inverse=True)[1]
    sides = _sides(groups, held_out)
    if labels is not None:
        unseen = sides & ~torch.isin(labels, labels[~sides])
        sides &= ~torch.isin(groups, groups[unseen])
    last, first = sides.nonzero()[:, 0], (~sides).nonzero()[:, 0]
    if not len(first):
        raise ValueError(f"test_fraction = {test_fraction}: the groups are so large that none is left to train on")
    if not len(last):
        alone = "has one item alone" if len(groups.unique()) == count else "is in one group alone"
        raise ValueError(
            f"test_fraction = {test_fraction}: every class {alone}, so that none can be held out: take more items per "
            "class, or leave the labels out"
        )
    take = getattr(items, "part", items.__getitem__)
    part_items = [take(part) for part in (first, last)]
    if transform is None:
        transform = _standardized(part_items[0], None if sizes is None else sizes[first])
    num_classes = class_count(labels)
    train, test = (
        Dataset(
            held,
            None if labels is None else labels[part],
            num_classes,
            transform,
            {kind: c[part] for kind, c in (conditions or {}).items()},
            about or {},
            None if sizes is None else sizes[part],
            captions=None if captions is None else [captions[i] for i in part.tolist()],
        )
        for held, part in zip(part_items, (first, last), strict=True)
    )
    return train, test


def _sides(groups: Tensor, held_out: int) -> Tensor:
    """Booleans (n,) of the items in the first groups, in a fixed random order, that have ``held_out`` items or more
    together; ``groups`` (n,) are numbered from 0."""
    counts = groups.bincount()
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(counts)))
    before = counts[order].cumsum(0) - counts[order]
    return torch.isin(groups, order[before < held_out])


def _standardized(items: Items, sizes: Tensor | None) -> Transform:
    """The transform of continuous items; of integers the identity, which a Dataset of them refuses."""
    return Transform.standardize(measure(items, sizes=sizes)) if items.dtype.is_floating_point else Transform()


def class_count(labels: Tensor | None) -> int | None:
    """One more than the largest label."""
    return None if labels is None else int(labels.max()) + 1
