"""Local attention: each position attends to those of its window or of its neighborhood, along every axis of a grid."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sde.networks.attention import attend

TILE = 8
"""Queries along an axis that share the keys that are gathered for their neighborhoods."""


class Axis(NamedTuple):
    """How an axis of n positions is cut into tiles, each of which attends to keys of its own.

    ``queries`` (tiles, q) and ``keys`` (tiles, k) are positions, ``allowed`` (tiles, q, k) which of the keys a query
    attends to, None for all, and ``places`` (n,) where each position is among all queries.
    """

    queries: Tensor
    keys: Tensor
    allowed: Tensor | None
    places: Tensor


def window_axis(n: int, size: int, shift: int, device: torch.device) -> Axis:
    """Windows of ``size`` positions that are moved back by ``shift``; the first one is in two parts, at both ends of
    the axis, that do not see each other (Liu et al. 2021, section 3.2). ``size`` divides n."""
    flat = torch.arange(n, device=device)
    positions = ((flat - shift) % n).view(-1, size)
    part = (positions + shift) // size
    allowed = part[:, :, None] == part[:, None, :] if shift else None
    return Axis(positions, positions, allowed, (flat + shift) % n)


def neighborhood_axis(n: int, size: int, device: torch.device) -> Axis:
    """The ``size`` positions around each one; near an end the last ``size`` ones there (Hassani et al. 2023, section
    3.1), and all of an axis that has no more."""
    size, tile = min(size, n), min(n, TILE)
    queries = torch.arange(-(-n // tile) * tile, device=device).view(-1, tile).clamp(max=n - 1)
    first = (queries - size // 2).clamp(min=0, max=n - size)
    span = min(n, tile - 1 + size)
    keys = first[:, :1].clamp(max=n - span) + torch.arange(span, device=device)
    offset = keys[:, None, :] - first[:, :, None]
    return Axis(queries, keys, (offset >= 0) & (offset < size), torch.arange(n, device=device))


def local_attention(q: Tensor, k: Tensor, v: Tensor, axes: Sequence[Axis], *, fused: bool) -> Tensor:
    """softmax(q k^T) v over the keys that each query attends to, those that every axis allows.

    q, k and v are (B, heads, *grid, width). What is gathered is about the size of q for windows, and ((TILE + size - 1)
    / TILE)^axes of it for neighborhoods, instead of a matrix of all pairs.
    """
    at, of = [axis.queries for axis in axes], [axis.keys for axis in axes]
    h = attend(_gather(q, at), _gather(k, of), _gather(v, of), _mask(axes), fused=fused, scale=1.0)
    # (tiles, B heads, queries, width) -> (B, heads, tiles and queries of each axis in turn, width)
    dims = len(axes)
    h = h.view(*(index.shape[0] for index in at), *q.shape[:2], *(index.shape[1] for index in at), -1)
    h = h.permute(dims, dims + 1, *(i for axis in range(dims) for i in (axis, dims + 2 + axis)), -1)
    for i, axis in enumerate(axes):
        h = h.flatten(2 + i, 3 + i).index_select(2 + i, axis.places)
    return h


def _gather(x: Tensor, indices: Sequence[Tensor]) -> Tensor:
    """x (B, heads, *grid, width) at the positions (tiles, count) of each axis: (tiles, B heads, positions, width)."""
    dims = len(indices)
    for i, index in enumerate(indices):
        x = x.index_select(2 + 2 * i, index.flatten()).unflatten(2 + 2 * i, index.shape)
    x = x.permute(*range(2, 2 + 2 * dims, 2), 0, 1, *range(3, 3 + 2 * dims, 2), -1)
    tiles, positions = (math.prod([index.shape[i] for index in indices]) for i in (0, 1))
    return x.reshape(tiles, -1, positions, x.shape[-1])


def _mask(axes: Sequence[Axis]) -> Tensor | None:
    """Which keys the queries of each tile attend to, (tiles, 1, queries, keys); None for all."""
    if all(axis.allowed is None for axis in axes):
        return None
    mask = torch.ones(1, 1, 1, dtype=torch.bool, device=axes[0].queries.device)
    for axis in axes:
        shape = (*axis.queries.shape, axis.keys.shape[1])
        one = mask.new_ones(shape) if axis.allowed is None else axis.allowed
        mask = mask[:, None, :, None, :, None] & one[None, :, None, :, None, :]
        mask = mask.flatten(4, 5).flatten(2, 3).flatten(0, 1)
    return mask.unsqueeze(1)
