"""Sizes of padded items: how much of each is real, along every axis behind the channels."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def real(sizes: Tensor, shape: Sequence[int]) -> Tensor:
    """Booleans (B, 1, *space) for items of a shape (channels, *space), (B, length) for vectors: True where the position
    on each axis of space is below the item's size (B,)."""
    space = shape[1:] or shape
    found = torch.ones(len(sizes), *space, dtype=torch.bool, device=sizes.device)
    for axis, length in enumerate(space):
        index = torch.arange(length, device=sizes.device).view(-1, *[1] * (len(space) - 1 - axis))
        found &= index < sizes.view(-1, *[1] * len(space))
    return found[:, None] if len(shape) > 1 else found


def cut(x: Tensor, sizes: Tensor | None, value: float = 0.0) -> Tensor:
    """Items x (B, *event) with ``value`` in the place of what is not real; as they are without sizes."""
    return x if sizes is None else torch.where(real(sizes.to(x.device), x.shape[1:]), x, value)


def real_entries(x: Tensor, sizes: Tensor | None) -> Tensor:
    """The entries of items x (n, *event) that are real, all of them without sizes, in a row."""
    return x.flatten() if sizes is None else x[real(sizes, x.shape[1:]).expand_as(x)]


def pad(items: Sequence[Tensor], shape: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
    """Items (channels, *space), or (length,), of unequal size in one tensor (n, *event), with 0 where they are padded,
    and their sizes (n,): to the longest of each axis, or to a shape. Raises ValueError for items that no size tells:
    with other channels, too large, or with several axes that do not end alike."""
    channels = {(item.ndim, *item.shape[:1]) if item.ndim > 1 else (item.ndim,) for item in items}
    if len(channels) != 1:
        raise ValueError(f"items have these axes and channels: {', '.join(map(str, sorted(channels)))}; needs the same")
    event = tuple(shape or (max(lengths) for lengths in zip(*(item.shape for item in items), strict=True)))
    x, sizes = items[0].new_zeros(len(items), *event), []
    for row, item in zip(x, items, strict=True):
        size = max(item.shape[1:] or item.shape)
        part = trim(row, size)
        if part.shape != item.shape:
            raise ValueError(
                f"an item of shape {tuple(item.shape)} has no size among items of shape {event}: of every axis behind "
                "the channels it needs as much, or all"
            )
        part.copy_(item)
        sizes.append(size)
    return x, torch.tensor(sizes)


def law_of(sizes: Tensor, most: int = 1000) -> list[list[int]]:
    """The law of sizes (n,), as plain values: pairs of a size and how many items have it, rising; of more than ``most``
    sizes, as many of their quantiles."""
    values, counts = sizes.unique(return_counts=True)
    if len(values) > most:
        middles = (torch.arange(most, dtype=torch.float64) + 0.5) / most
        ordered = sizes.sort().values
        values, counts = ordered[(middles * len(sizes)).long()].unique(return_counts=True)
    return [[size, count] for size, count in zip(values.tolist(), counts.tolist(), strict=True)]


def trimmed(x: Tensor, sizes: Tensor | None) -> list[Tensor]:
    """Items x (n, *event) less what they are padded with, each."""
    return list(x) if sizes is None else [trim(item, size) for item, size in zip(x, sizes.tolist(), strict=True)]


def trim(item: Tensor, size: int) -> Tensor:
    """What is real of one item (*event): its first ``size`` entries along every axis of space."""
    for axis in range(1 if item.ndim > 1 else 0, item.ndim):
        item = item.narrow(axis, 0, min(size, item.shape[axis]))
    return item


def item_means(values: Tensor, sizes: Tensor | None) -> Tensor:
    """Means (B,) over the entries of values (B, *event) that are real; over all without sizes."""
    if sizes is None:
        return values.flatten(1).mean(1)
    inside = real(sizes.to(values.device), values.shape[1:]).expand_as(values)
    return torch.where(inside, values, 0).flatten(1).sum(1) / inside.flatten(1).sum(1)


def as_sizes(sizes: np.ndarray | None, shape: Sequence[int]) -> Tensor | None:
    """Sizes (n,) of items (n, *event) of a shape, or None. Raises ValueError for what are none."""
    if sizes is None:
        return None
    if sizes.dtype.kind not in "iu":
        raise ValueError(f"the sizes have type {sizes.dtype}: needs integers, how many entries of each item are real")
    found = torch.from_numpy(sizes.astype(np.int64))
    check_sizes(found, shape[0], shape[1:])
    return found


def check_sizes(sizes: Tensor, count: int, shape: Sequence[int]) -> None:
    """Raise ValueError for anything else than an integer per item, from 1 to its longest axis."""
    longest = max(shape[1:] or shape, default=0)
    whole = not (sizes.dtype.is_floating_point or sizes.dtype == torch.bool)
    if sizes.shape != (count,) or not whole:
        raise ValueError(f"sizes have shape {tuple(sizes.shape)} and type {sizes.dtype}: needs {count} integers")
    if count and not (sizes.min() >= 1 and sizes.max() <= longest):
        raise ValueError(
            f"sizes run from {int(sizes.min())} to {int(sizes.max())}, but items have shape {tuple(shape)}: needs "
            f"integers from 1 to {longest}"
        )
