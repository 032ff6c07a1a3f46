"""ADM and its classifier: what the batteries do not ask, written out once more from the papers."""

import math

import pytest
import torch
import torch.nn.functional as F

from sde.networks.adm import ADM
from sde.networks.adm_classifier import ADMClassifier, AttentionPool
from sde.networks.attention import SelfAttention
from sde.networks.blocks import ResidualBlock
from sde.networks.mapping import ADMMapping
from tests.batteries.networks import normal, randomise

SMALL = {"channels": 32, "num_res_blocks": 1, "attention_resolutions": (4,), "head_channels": 16}


def test_mapping():
    """layers([cos, sin] of c_noise 10000^(-i / n), plus the augmentation), plus the row of the class."""
    own = randomise(ADMMapping(6, 8, num_classes=3, augment_dim=2))
    c_noise, labels, augmentation = normal(4) * 100, torch.tensor([0, 2, -1, 1]), normal(4, 2)
    frequencies = own.frequencies.double()
    torch.testing.assert_close(frequencies, 10_000.0 ** (-torch.arange(3) / 3).double(), rtol=1e-6, atol=0)
    angle = c_noise[:, None] * frequencies
    h = torch.cat([angle.cos(), angle.sin()], 1) + augmentation @ own.augment.weight.T
    first, second = own.layers[0], own.layers[2]
    h = F.silu(h @ first.weight.T + first.bias) @ second.weight.T + second.bias
    rows = torch.cat([own.label.weight, torch.zeros(1, 8)])[labels]
    torch.testing.assert_close(own(c_noise, labels, augmentation), h + rows)
    torch.testing.assert_close(own(c_noise, labels, None), own(c_noise, labels, torch.zeros_like(augmentation)))


@pytest.mark.parametrize("adaptive", [True, False])
def test_blocks_are_modulated(adaptive):
    """norm(h) (1 + scale) + shift, scale first; or norm(h + shift)."""
    network = randomise(ADM((1, 8, 8), **SMALL, adaptive=adaptive))
    block = network.encoder.levels[0][0].block
    x, embedding = normal(2, 32, 4, 4), normal(2, 128)
    h = block.conv1(F.silu(block.norm1(x)))
    modulation = (embedding @ block.modulation.weight.T + block.modulation.bias)[:, :, None, None]
    if adaptive:
        h = block.norm2(h) * (1 + modulation[:, :32]) + modulation[:, 32:]
    else:
        assert modulation.shape[1] == 32
        h = block.norm2(h + modulation)
    torch.testing.assert_close(block(x, embedding), x + block.conv2(F.silu(h)))


@pytest.mark.parametrize(("least", "groups"), [(1, {32: 32, 64: 32, 192: 32}), (4, {32: 8, 64: 16, 192: 32})])
def test_group_norms(least, groups):
    network = ADM((1, 8, 8), channels=32, channel_mult=(1, 2, 6), num_res_blocks=1, group_channels=least)
    norms = [m for m in network.modules() if isinstance(m, torch.nn.GroupNorm)]
    assert {n.eps for n in norms} == {1e-5}
    found = {n.num_channels: n.num_groups for n in norms}
    assert {channels: found[channels] for channels in groups} == groups


def heads(network):
    """The numbers of heads on the way down, in the middle, and on the way up."""
    encoder = network.encoder
    return [
        {m.heads for m in part.modules() if isinstance(m, SelfAttention)}
        for part in (encoder.levels, encoder.middle, network.levels)
    ]


def test_heads():
    assert heads(ADM((1, 8, 8), **SMALL, channel_mult=(1, 2))) == [{4}, {4}, {4}]
    assert heads(ADM((1, 8, 8), **SMALL, num_heads=8)) == [{8}, {8}, {8}]
    assert heads(ADM((1, 8, 8), **SMALL, num_heads=8, num_heads_upsample=2)) == [{8}, {8}, {2}]
    assert heads(ADM((1, 8, 8), **SMALL, middle_attention=False)) == [{4}, set(), {4}]
    with pytest.raises(ValueError, match=r"^num_heads = 5 does not divide 64 channels: take a divisor$"):
        ADM((1, 8, 8), **SMALL, num_heads=5)


def test_learned_variance_is_the_second_half():
    network = ADM((2, 8, 8), **SMALL, learned_variance=True)
    assert network.head.weight.shape[0] == 4
    torch.nn.init.zeros_(network.head.weight)
    with torch.no_grad():
        network.head.bias.copy_(torch.arange(4.0))
    found = network(torch.zeros(1, 2, 8, 8), torch.zeros(1))
    torch.testing.assert_close(found, torch.arange(2.0).view(1, 2, 1, 1).expand(1, 2, 8, 8))


def test_how_levels_are_resampled():
    kinds = {
        "blocks": ADM((1, 8, 8), **SMALL),
        "convolutions": ADM((1, 8, 8), **SMALL, resample_blocks=False),
        "none": ADM((1, 8, 8), **SMALL, resample_blocks=False, resample_conv=False),
    }
    found = {name: (type(n.encoder.downs[0]), type(n.ups[0])) for name, n in kinds.items()}
    assert found == {
        "blocks": (ResidualBlock, ResidualBlock),
        "convolutions": (torch.nn.Conv2d, torch.nn.Conv2d),
        "none": (torch.nn.AvgPool2d, torch.nn.Identity),
    }


def test_fractions_of_channels():
    network = ADM((1, 16, 16), channels=32, channel_mult=(0.5, 1, 1.5), num_res_blocks=1)
    assert network.encoder.options.level_channels == [16, 32, 48]
    assert network.encoder.stem.out_channels == 16
    with pytest.raises(ValueError, match=r"^channel_mult = \(0.3, 1\) of channels = 32: needs whole numbers"):
        ADM((1, 16, 16), channels=32, channel_mult=(0.3, 1))


def test_attention_pool():
    """The mean of the positions attends to itself and to them, with learned positions."""
    pool = randomise(AttentionPool(8, 3, heads=2, space=(2, 3)))
    x = normal(2, 8, 2, 3)
    tokens = x.flatten(2)
    tokens = torch.cat([tokens.mean(2, keepdim=True), tokens], 2) + pool.positions
    out = []
    for row in tokens:
        q, k, v = (row.T @ pool.qkv.weight.T + pool.qkv.bias).split(8, dim=1)
        each = []
        for head in (slice(0, 4), slice(4, 8)):
            weights = (k[:, head] @ q[0, head] / math.sqrt(4)).softmax(0)
            each.append(weights @ v[:, head])
        out.append(pool.out.weight @ torch.cat(each) + pool.out.bias)
    torch.testing.assert_close(pool(x), torch.stack(out))
    with pytest.raises(ValueError, match=r"x has 4 positions at the last level.*built for 6: pool adaptive takes any"):
        pool(x[..., :2])


@pytest.mark.parametrize("pool", ["attention", "adaptive", "spatial", "spatial_v2"])
def test_pools(pool):
    network = randomise(ADMClassifier((2, 6, 8), 5, pool=pool, **SMALL | {"attention_resolutions": ()}))
    x, c_noise = normal(3, 2, 6, 8), normal(3)
    skips, middle, *_ = network.encoder(x, c_noise)
    if pool.startswith("spatial"):
        flat = [activation for level in skips for activation in level]
        assert [a.shape[1] for a in flat] == [32, 32, 32, 64], "the stem, a block per level, and what halves"
        h = network.head[0](torch.cat([a.mean((2, 3)) for a in (*flat, middle)], 1))
        h = h.relu() if pool == "spatial" else F.silu(F.group_norm(h, 32, *network.head[1].parameters()))
        expected = network.head[-1](h)
    else:
        h = F.silu(network.norm(middle))
        expected = network.head(h.mean((2, 3)) if pool == "adaptive" else h)
    torch.testing.assert_close(network(x, c_noise), expected)
    if pool == "adaptive":
        assert network(normal(1, 2, 4, 4), normal(1)).shape == (1, 5)


def test_an_unknown_pool():
    with pytest.raises(ValueError, match=r"^pool = 'mean': needs one of attention, adaptive, spatial, spatial_v2$"):
        ADMClassifier((2, 6, 8), 5, pool="mean")
