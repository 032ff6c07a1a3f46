"""Local attention against dense attention with a mask by definition, in one to three dimensions."""

import math

import pytest
import torch

from sde.networks.windows import TILE, local_attention, neighborhood_axis, window_axis


def neighbors(n, size):
    """Whether each position sees each: the ``size`` positions around it, moved inside at the ends."""
    size = min(size, n)
    seen = torch.zeros(n, n, dtype=torch.bool)
    for i in range(n):
        first = min(max(i - size // 2, 0), n - size)
        seen[i, first : first + size] = True
    return seen


def same_window(n, size, shift):
    """Windows [k size - shift, (k + 1) size - shift), cut off at the ends."""
    window = [(i + shift) // size for i in range(n)]
    return torch.tensor([[a == b for a in window] for b in window])


def dense(q, k, v, seen):
    """softmax(q k^T) v over all pairs that every axis allows."""
    mask = seen[0]
    for one in seen[1:]:
        mask = torch.einsum("ij,kl->ikjl", mask.double(), one.double()).flatten(2).flatten(0, 1) > 0
    logits = (q.flatten(2, -2) @ k.flatten(2, -2).mT).masked_fill(~mask, -math.inf)
    return (logits.softmax(-1) @ v.flatten(2, -2)).view(q.shape)


def heads(grid):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(2, 3, *grid, 4, dtype=torch.float64, generator=generator) for _ in range(3))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("grid", [(5,), (2 * TILE + 3,), (9, 20), (4, 3, 10)], ids=str)
def test_neighborhoods(grid, size, fused):
    q, k, v = heads(grid)
    axes = [neighborhood_axis(n, size, q.device) for n in grid]
    found = local_attention(q, k, v, axes, fused=fused)
    torch.testing.assert_close(found, dense(q, k, v, [neighbors(n, size) for n in grid]))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("shift", [0, 1, 2])
@pytest.mark.parametrize(("grid", "size"), [((12,), 4), ((8, 12), 4), ((4, 4), 4), ((6, 3, 9), 3)], ids=str)
def test_shifted_windows(grid, size, shift, fused):
    q, k, v = heads(grid)
    axes = [window_axis(n, size, shift, q.device) for n in grid]
    found = local_attention(q, k, v, axes, fused=fused)
    torch.testing.assert_close(found, dense(q, k, v, [same_window(n, size, shift) for n in grid]))


def test_axes_of_both_kinds_at_once():
    q, k, v = heads((8, 11))
    axes = [window_axis(8, 4, 0, q.device), neighborhood_axis(11, 5, q.device)]
    found = local_attention(q, k, v, axes, fused=False)
    torch.testing.assert_close(found, dense(q, k, v, [same_window(8, 4, 0), neighbors(11, 5)]))


def test_no_matrix_of_all_pairs():
    largest = [0]

    def pack(tensor):
        largest.append(tensor.numel())
        return tensor

    q, k, v = (torch.randn(1, 1, 64, 64, 2, requires_grad=True) for _ in range(3))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        local_attention(q, k, v, [neighborhood_axis(64, 7, q.device)] * 2, fused=False)
    assert max(largest) < 64**4 / 16
