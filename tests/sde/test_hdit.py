"""HDiT: its layers by their formulas, its positions, the hourglass, options that do not fit."""

import math

import pytest
import torch
import torch.nn.functional as F

from sde.networks.hdit import HDiT
from sde.networks.hdit_layers import AdaRMSNorm, CosineAttention, HDiTLayer, SkipSplit, TokenMerge, TokenSplit
from sde.networks.hdit_levels import levels_of, surroundings
from sde.networks.mapped_embedding import FourierFeatures, MappingBlock
from sde.networks.rotary import grid_positions
from tests.batteries.networks import normal, randomise

SMALL = {"widths": (12, 24), "depths": (2, 1), "head_widths": (12,), "mapping_width": 16, "mapping_depth": 1}


def rms(x):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def test_norm():
    """rms_norm(x) (1 + W embedding)."""
    torch.manual_seed(0)
    norm, x, embedding = randomise(AdaRMSNorm(6, 5)), normal(2, 3, 4, 6), normal(2, 5)
    scale = embedding @ norm.modulation.weight.T
    torch.testing.assert_close(norm(x, embedding), rms(x) * (1 + scale[:, None, None]))
    small = 1e-3 * x
    torch.testing.assert_close(norm(small, embedding), rms(small) * (1 + scale[:, None, None]))


def test_mapping_block():
    """x + down(u gelu(v)), (u, v) = up(scale rms(x))."""
    torch.manual_seed(0)
    block, x = randomise(MappingBlock(6, 10, 0.0)), normal(4, 6)
    u, v = ((block.norm.scale * rms(x)) @ block.layers.up.weight.T).split(10, 1)
    torch.testing.assert_close(block(x), x + (u * F.gelu(v)) @ block.layers.down.weight.T)


def test_fourier_features():
    """Cosines, then sines, of the products with the frequencies; normal ones times 2 pi."""
    features, x = FourierFeatures(3, 8).double(), normal(5, 3)
    angles = x @ features.frequencies.T
    torch.testing.assert_close(features(x), torch.cat([angles.cos(), angles.sin()], 1))
    drawn = FourierFeatures(1, 20_000).frequencies
    assert drawn.std().item() == pytest.approx(2 * math.pi, rel=0.03)


@pytest.mark.parametrize("grid", [(7,), (4, 6), (2, 3, 4)])
def test_attention(grid):
    """Logits are scale cos(q, k) of heads rotated by coordinates times frequencies, first axis first."""
    torch.manual_seed(0)
    dims, head = len(grid), 12
    layer, x = randomise(CosineAttention(24, head, dims)), normal(2, *grid, 24)
    q, k, v = (layer.qkv(x).view(2, *grid, 3, 2, head).select(-3, i).movedim(-2, 1).flatten(2, -2) for i in range(3))
    count, longest = head // (4 * dims), max(grid)
    axes = [[(2 * i + 1 - n) / longest for i in range(n)] for n in grid]
    positions = torch.cartesian_prod(*(torch.tensor(a, dtype=torch.float64) for a in axes)).view(-1, dims)

    def rotated(y):
        y = y / (y.square().sum(-1, keepdim=True) + 1e-6).sqrt()
        out = y.clone()
        for h in range(2):
            for axis in range(dims):
                for i in range(count):
                    angle = positions[:, axis] * math.pi * 10 ** ((i * 2 + h) / (2 * count))
                    a, b = axis * count + i, dims * count + axis * count + i
                    out[:, h, :, a] = y[:, h, :, a] * angle.cos() - y[:, h, :, b] * angle.sin()
                    out[:, h, :, b] = y[:, h, :, a] * angle.sin() + y[:, h, :, b] * angle.cos()
        return out

    weights = (layer.scale[:, None, None] * rotated(q) @ rotated(k).mT).softmax(-1)
    expected = (weights @ v).transpose(1, 2).reshape(2, *grid, 24) @ layer.out.weight.T
    # Frequencies are in float32.
    found = layer(x, grid_positions(grid, x), None, False)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layer(x, grid_positions(grid, x), None, True), found)


def test_positions_are_those_of_merged_tokens():
    """The center of a block of two a side is the mean of its centers, whatever the sides of the grid."""
    fine, coarse = (grid_positions(grid, torch.empty(0, dtype=torch.float64)) for grid in ((4, 12), (2, 6)))
    torch.testing.assert_close(fine.view(2, 2, 6, 2, 2).mean((1, 3)), coarse)
    assert fine[..., 1].max() == pytest.approx(11 / 12)
    assert fine[..., 0].max() == pytest.approx(3 / 12)


@pytest.mark.parametrize("attention", ["none", "global", "neighborhood"])
def test_layer(attention):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""
    torch.manual_seed(0)
    (level,) = levels_of((12,), (1,), (20,), (attention,), (12,), (3,), 0.0)
    layer, x, embedding = randomise(HDiTLayer(level, 5, 2, 0)), normal(2, 4, 6, 12), normal(2, 5)
    positions, (axes, _) = grid_positions((4, 6), x), surroundings(level, (4, 6), x)
    middle = x
    if attention != "none":
        middle = x + layer.attention(layer.attention_norm(x, embedding), positions, axes, False)
    u, v = layer.layers.up(layer.norm(middle, embedding)).split(20, -1)
    expected = middle + (u * F.gelu(v)) @ layer.layers.down.weight.T
    torch.testing.assert_close(layer(x, embedding, positions, axes), expected)


def test_every_other_layer_shifts_its_windows():
    """By half a window, and the numbers of layers go on where those of the way down end: with an odd depth the first
    one on the way up is shifted."""
    seen = []
    options = SMALL | {"attentions": ("shifted_window", "global"), "windows": (4,), "patch_size": 1}
    network = HDiT((1, 16, 16), **options | {"depths": (3, 1)})
    for layer in [*network.down[0], *network.up[0]]:
        layer.register_forward_pre_hook(lambda module, args: seen.append(args[3][0].queries[0].tolist()))
    network(torch.zeros(1, 1, 16, 16), torch.zeros(1))
    plain, shifted = [0, 1, 2, 3], [14, 15, 0, 1]
    assert seen == [plain, shifted, plain, shifted, plain, shifted]


@pytest.mark.parametrize(("grid", "sizes"), [((3,), (2,)), ((2, 3), (2, 4)), ((2, 1, 3), (1, 2, 2))])
def test_tokens_are_merged_and_split(grid, sizes):
    """Blocks are told their entries with the last axis fastest and features within; splitting is the way back."""
    dims, space = len(grid), [g * s for g, s in zip(grid, sizes, strict=True)]
    merge, split = TokenMerge(3, 5, sizes).double(), TokenSplit(5, 3, sizes).double()
    x = normal(2, *space, 3)
    found = merge(x)
    assert found.shape == (2, *grid, 5)
    for at in torch.cartesian_prod(*map(torch.arange, grid)).view(-1, dims).tolist():
        place = (slice(None), *(slice(a * s, (a + 1) * s) for a, s in zip(at, sizes, strict=True)))
        block = x[place].flatten(1)
        torch.testing.assert_close(found[(slice(None), *at)], block @ merge.layer.weight.T)
        back = (found[(slice(None), *at)] @ split.layer.weight.T).view(2, *sizes, 3)
        torch.testing.assert_close(split(found)[place], back)


def test_skips_are_joined_by_a_learned_share():
    join, x, skip = SkipSplit(4, 3, 2).double(), normal(1, 2, 2, 4), normal(1, 4, 4, 3)
    torch.testing.assert_close(join(x, skip), (skip + join.split(x)) / 2)
    torch.nn.init.constant_(join.share, 0.3)
    torch.testing.assert_close(join(x, skip), 0.7 * skip + 0.3 * join.split(x))


def test_augmentation_is_told():
    network = randomise(HDiT((1, 8, 8), augment_dim=9, **SMALL))
    x, zero = normal(2, 1, 8, 8), torch.zeros(2, dtype=torch.float64)
    plain = network(x, zero)
    torch.testing.assert_close(network(x, zero, {"augmentation": torch.zeros(2, 9)}), plain)
    labels = torch.zeros(2, 9)
    labels[1, 8] = 0.3
    told = network(x, zero, {"augmentation": labels})
    torch.testing.assert_close(told[0], plain[0])
    assert not torch.allclose(told[1], plain[1])
    with pytest.raises(ValueError, match=r"augmentation has shape \(2, 8\): this network takes \(B, 9\)"):
        network(x, zero, {"augmentation": torch.zeros(2, 8)})
    with pytest.raises(ValueError, match=r"a condition \(augmentation\) was given, but the model is unconditional"):
        HDiT((1, 8, 8), **SMALL)(x.float(), zero.float(), {"augmentation": labels})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"widths": (8, 16, 32)}, r"depths = \(2, 1\): needs one value, or one for each of the 3 levels"),
        ({"attentions": ("local",)}, "attentions = 'local': needs one of global, neighborhood, shifted_window, none"),
        ({"head_widths": (10,)}, "width 12 .* cannot be split into heads of head_widths = 10: needs a multiple, as 20"),
        ({"windows": (4,)}, "windows = 4: a neighborhood has a middle, and needs an odd size, as 7"),
        ({"head_widths": (6,)}, "head_widths = 6: needs at least 8, for positions on 2 axes"),
        ({"patch_size": (2, 2, 2)}, r"patch_size = \(2, 2, 2\): needs one number, or one for each axis"),
        ({"mapping_width": 7}, "mapping_width = 7: needs an even number"),
        ({"depths": (0, 1)}, r"depths = \(0, 1\): needs whole numbers from 1"),
    ],
)
def test_options_that_do_not_fit(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        HDiT((1, 8, 8), **SMALL | options)
