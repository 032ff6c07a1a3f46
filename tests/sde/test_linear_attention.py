"""The U-Net with linear attention: its parts, written out once more."""

import math
import re

import pytest
import torch
import torch.nn.functional as F

from sde.networks.linear_attention import ChannelRMSNorm, LinearAttention, MemoryAttention, ModulatedBlock
from sde.networks.linear_attention_unet import LinearAttentionUNet, NoiseFeatures
from sde.networks.resample import space_to_channels
from tests.batteries.networks import normal, randomise


def rms_norm(x, scale):
    """x over the root of the mean of its squares, position by position."""
    return x / x.square().mean(1, keepdim=True).sqrt() * scale.view(-1, *[1] * (x.ndim - 2))


def test_rms_norm():
    norm, x = randomise(ChannelRMSNorm(6)), normal(2, 6, 3, 4)
    torch.testing.assert_close(norm(x), rms_norm(x, norm.scale))


def test_linear_attention():
    """sum over positions m of softmax(k)_m v_m, weighted by softmax(q) / sqrt(n) over the n channels of a head."""
    own, x = randomise(LinearAttention(1, 5, 2, 3)), normal(2, 5, 4)
    q, k, v = F.conv1d(rms_norm(x, own.norm.scale), own.qkv.weight).split(6, dim=1)
    heads = []
    for head in range(2):
        part = slice(3 * head, 3 * head + 3)
        keys, values = (torch.cat([own.memory[i, head].expand(2, 3, 4), y[:, part]], 2) for i, y in ((0, k), (1, v)))
        context = torch.einsum("bdm,bem->bde", keys.exp() / keys.exp().sum(2, keepdim=True), values)
        weights = q[:, part].exp() / q[:, part].exp().sum(1, keepdim=True) / math.sqrt(3)
        heads.append(torch.einsum("bde,bdn->ben", context, weights))
    out = F.conv1d(torch.cat(heads, 1), own.out.weight, own.out.bias)
    torch.testing.assert_close(own(x), x + rms_norm(out, own.out_norm.scale))


@pytest.mark.parametrize("fused", [True, False])
def test_attention_to_a_memory(fused):
    own, x = randomise(MemoryAttention(1, 5, 2, 3)), normal(2, 5, 4)
    q, k, v = F.conv1d(rms_norm(x, own.norm.scale), own.qkv.weight).split(6, dim=1)
    heads = []
    for head in range(2):
        part = slice(3 * head, 3 * head + 3)
        keys, values = (torch.cat([own.memory[i, head].T.expand(2, 3, 4), y[:, part]], 2) for i, y in ((0, k), (1, v)))
        weights = (torch.einsum("bdn,bdm->bnm", q[:, part], keys) / math.sqrt(3)).softmax(2)
        heads.append(torch.einsum("bnm,bdm->bdn", weights, values))
    out = F.conv1d(torch.cat(heads, 1), own.out.weight, own.out.bias)
    torch.testing.assert_close(own(x, fused), x + out)


def test_modulated_block():
    network = randomise(LinearAttentionUNet((1, 8, 8), channels=4))
    block = network.downs[0]["first"]
    assert isinstance(block, ModulatedBlock)
    x, embedding = normal(2, 4, 3, 3), normal(2, 16)
    scale, shift = (embedding @ block.modulation.weight.T + block.modulation.bias)[:, :, None, None].split(4, 1)
    h = F.silu(rms_norm(block.conv1(x), block.norm1.scale) * (1 + scale) + shift)
    torch.testing.assert_close(block(x, embedding), x + F.silu(rms_norm(block.conv2(h), block.norm2.scale)))


@pytest.mark.parametrize("kind", ["sinusoidal", "fourier", "learned"])
def test_noise_features(kind):
    own, c_noise = randomise(NoiseFeatures(8, kind, 6)), normal(4) * 10
    angle = c_noise[:, None] * own.frequencies
    if kind == "sinusoidal":
        torch.testing.assert_close(own.frequencies, torch.tensor([1, 1e-2, 1e-4]).double())
        features = [angle.sin(), angle.cos()]
    else:
        angle = 2 * math.pi * angle
        features = [c_noise[:, None], angle.sin(), angle.cos()]
    first, second = own.layers[0], own.layers[2]
    h = torch.cat(features, 1) @ first.weight.T + first.bias
    h = 0.5 * h * (1 + torch.erf(h / math.sqrt(2)))
    torch.testing.assert_close(own(c_noise), h @ second.weight.T + second.bias)
    assert isinstance(own.frequencies, torch.nn.Parameter) == (kind == "learned")


@pytest.mark.parametrize("space", [(6,), (4, 6), (2, 4, 6)])
def test_space_to_channels(space):
    """Channel c 2^dims + k holds position k of each block, the last axis fastest: torch's order for images."""
    x = normal(2, 3, *space)
    found = space_to_channels(x)
    assert found.shape == (2, 3 * 2 ** len(space), *(size // 2 for size in space))
    if len(space) == 2:
        assert torch.equal(found, F.pixel_unshuffle(x, 2))
    every = [found[:, 2 ** len(space) - 1 :: 2 ** len(space)], found[:, :: 2 ** len(space)]]
    assert torch.equal(every[0], x[(..., *[slice(1, None, 2)] * len(space))])
    assert torch.equal(every[1], x[(..., *[slice(0, None, 2)] * len(space))])


def test_options_per_level():
    sentence = "heads = (2, 3, 4): needs one value, or one for each of the 2 levels that channel_mult = (1, 2) gives"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        LinearAttentionUNet((1, 8, 8), heads=(2, 3, 4))
    network = LinearAttentionUNet((1, 8, 8), channels=8, full_attention=(True, False), heads=(2, 4))
    kinds = [type(level["second"].attention) for level in (*network.downs, *network.ups)]
    assert kinds == [MemoryAttention, LinearAttention, LinearAttention, MemoryAttention]
    assert [level["second"].attention.heads for level in (*network.downs, *network.ups)] == [2, 4, 4, 2]
    assert isinstance(network.middle[0].attention, MemoryAttention)


def test_an_estimate_is_zero_and_comes_first():
    network = randomise(LinearAttentionUNet((2, 8, 8), channels=4, self_condition=True))
    x, c_noise = normal(1, 2, 8, 8), normal(1)
    before = network(x, c_noise)
    with torch.no_grad():
        network.stem.weight[:, :2] = 7
    torch.testing.assert_close(network(x, c_noise), before)
    with torch.no_grad():
        network.stem.weight[:, 2:] *= 2
    assert not torch.allclose(network(x, c_noise), before)
