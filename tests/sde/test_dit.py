"""The DiT: its sizes in the paper, its positions, its blocks by their formulas, what it does to patches."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sde.networks import dit
from sde.networks.dit import DiT, DiTBlock
from sde.networks.positions import position_embedding
from tests.batteries.networks import normal


def randomised(*args, **options):
    torch.manual_seed(0)
    network = DiT(*args, **{"width": 24, "depth": 2, "heads": 3} | options).double().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


@pytest.mark.parametrize(
    ("millions", "depth", "width", "heads"),
    [(33, 12, 384, 6), (130, 12, 768, 12), (458, 24, 1024, 16), (675, 28, 1152, 16)],
)
def test_sizes_of_the_paper(millions, depth, width, heads):
    """Peebles and Xie 2023, tables 1 and 4: S, B, L and XL with patches of 2 on 4 x 32 x 32 latents, 1000 classes."""
    with torch.device("meta"):
        network = DiT((4, 32, 32), 1000, patch_size=2, width=width, depth=depth, heads=heads)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(millions * 1e6, rel=0.01)


@pytest.mark.parametrize("grid", [(7,), (3, 5), (2, 3, 4)])
@pytest.mark.parametrize("width", [12, 22])
def test_positions(grid, width):
    count = width // (2 * len(grid))
    expected = np.zeros((math.prod(grid), width))
    for row, position in enumerate(np.ndindex(*grid)):
        for axis, coordinate in enumerate(position):
            for i in range(count):
                angle = coordinate / 10_000 ** (i / count)
                expected[row, axis * 2 * count + i] = math.sin(angle)
                expected[row, axis * 2 * count + count + i] = math.cos(angle)
    embedding = position_embedding(grid, width)
    np.testing.assert_allclose(embedding.numpy(), expected, atol=1e-6)
    distance = torch.cdist(embedding, embedding) + 9 * torch.eye(len(embedding))
    assert distance.min() > 0.1, "no two positions are alike"


@pytest.mark.parametrize("training", [False, True])
def test_block(training):
    """x + gate f(norm(x) (1 + scale) + shift), for attention and then for two layers, in evaluation and in training."""
    torch.manual_seed(0)
    block = DiTBlock(12, 3, 20, 0.0).double().train(training)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, embedding = normal(2, 5, 12), normal(2, 12)
    a = embedding @ block.modulation.weight.T + block.modulation.bias
    shift1, scale1, gate1, shift2, scale2, gate2 = a.view(2, 6, 1, 12).unbind(1)

    def norm(x):
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()

    h = (norm(x) * (1 + scale1) + shift1) @ block.qkv.weight.T + block.qkv.bias
    q, k, v = (part.view(2, 5, 3, 4) for part in h.split(12, dim=2))
    weights = (torch.einsum("bnhc,bmhc->bhnm", q, k) / math.sqrt(4)).softmax(-1)
    mixed = torch.einsum("bhnm,bmhc->bnhc", weights, v).reshape(2, 5, 12)
    middle = x + gate1 * (mixed @ block.out.weight.T + block.out.bias)
    first, last = block.layers[0], block.layers[2]
    h = F.gelu((norm(middle) * (1 + scale2) + shift2) @ first.weight.T + first.bias, approximate="tanh")
    torch.testing.assert_close(block(x, embedding), middle + gate2 * (h @ last.weight.T + last.bias))
    with torch.no_grad():
        torch.testing.assert_close(block(x, embedding), middle + gate2 * (h @ last.weight.T + last.bias))


def test_training_keeps_no_matrix_of_all_pairs_of_tokens():
    network, largest = DiT((1, 100), patch_size=1, width=12, depth=2, heads=3), [0]

    def pack(tensor):
        largest.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(torch.randn(1, 1, 100), torch.randn(1))
        assert max(largest) < 100 * 100
        network(torch.randn(1, 1, 100, requires_grad=True), torch.randn(1))
        assert max(largest) == 3 * 100 * 100, "likelihood and guidance differentiate by x, and more than once"


@pytest.mark.parametrize(("shape", "grid"), [((2, 12), (6,)), ((1, 6, 4), (3, 2)), ((1, 4, 2, 6), (2, 1, 3))])
def test_permuted_patches_with_permuted_positions(monkeypatch, shape, grid):
    """Attention has no order: patches and their positions, permuted together, give the permuted output."""
    network, x, zero = randomised(shape), normal(2, *shape), torch.zeros(2, dtype=torch.float64)
    order = torch.randperm(math.prod(grid), generator=torch.Generator().manual_seed(1))
    assert not torch.equal(order, order.sort().values)
    dims = len(grid)
    split = [part for size in grid for part in (size, 2)]
    patches_last = [0, *range(2, 2 + 2 * dims, 2), 1, *range(3, 3 + 2 * dims, 2)]

    def permuted(x):
        patches = x.view(2, shape[0], *split).permute(patches_last)
        patches = patches.flatten(1, dims)[:, order].unflatten(1, grid)
        return patches.permute(*np.argsort(patches_last).tolist()).reshape(x.shape)

    expected = permuted(network(x, zero))
    assert not torch.allclose(network(permuted(x), zero), expected), "positions matter"
    monkeypatch.setattr(dit, "position_embedding", lambda *args: position_embedding(*args)[order])
    torch.testing.assert_close(network(permuted(x), zero), expected)


def test_blocks_start_as_the_identity():
    """adaLN-Zero: all gates are zero at first, so that a patch of the output depends on that patch of x alone."""
    network = DiT((1, 8, 8), width=16, depth=2, heads=2).double()
    tokens, embedding = normal(2, 5, 16), normal(2, 16)
    assert all(torch.equal(block(tokens, embedding), tokens) for block in network.blocks)
    torch.nn.init.normal_(network.head.weight)
    x, zero = normal(1, 1, 8, 8), torch.zeros(1, dtype=torch.float64)
    moved = x.clone()
    moved[0, 0, 3, 5] += 1
    rows, columns = (network(moved, zero) - network(x, zero))[0, 0].abs().gt(1e-9).nonzero().unbind(1)
    assert set(rows.tolist()) <= {2, 3}
    assert set(columns.tolist()) <= {4, 5}
    assert len(rows) > 0


def test_sizes_that_no_patch_divides_are_padded_with_zeros():
    network, zero = randomised((2, 5, 7), patch_size=3), torch.zeros(1, dtype=torch.float64)
    x = normal(1, 2, 5, 7)
    torch.testing.assert_close(network(x, zero), network(F.pad(x, (0, 2, 0, 1)), zero)[..., :5, :7])


def test_far_patches_meet():
    network, x, zero = randomised((1, 16)), normal(1, 1, 16), torch.zeros(1, dtype=torch.float64)
    moved = x.clone()
    moved[..., 15] += 1
    assert (network(moved, zero) - network(x, zero))[..., 0].abs() > 1e-6


def test_numbers_that_do_not_fit():
    with pytest.raises(ValueError, match="width = 100 cannot be split into heads = 6: needs a multiple, as 102"):
        DiT((1, 8, 8), width=100)
    for key in ("patch_size", "width", "depth", "heads"):
        with pytest.raises(ValueError, match=f"{key} = 0: needs whole numbers from 1"):
            DiT((1, 8, 8), **{key: 0})
    with pytest.raises(ValueError, match=r"mlp_ratio = 0.0: needs a positive number"):
        DiT((1, 8, 8), mlp_ratio=0.0)
    with pytest.raises(ValueError, match="use network mlp for vectors"):
        DiT((5,))
