"""The U-Net's blocks by their formulas; groups and heads for any number of channels."""

import math

import pytest
import torch
import torch.nn.functional as F

from sde.networks.attention import SelfAttention
from sde.networks.blocks import ResidualBlock
from sde.networks.layers import BlockOptions, groups_of, residual_sum
from sde.networks.resample import TAPS, resampler
from tests.batteries.networks import normal, randomise

HALF = math.sqrt(0.5)


def block(resample=None, rescale=False, inputs=8, outputs=8):
    torch.manual_seed(0)
    return randomise(ResidualBlock(BlockOptions(2, 16, 0.0, rescale), inputs, outputs, resample))


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("outputs", [8, 12])
@pytest.mark.parametrize(("fir", "up"), [(None, False), (False, False), (True, False), (False, True), (True, True)])
def test_residual_block(rescale, outputs, fir, up):
    """Both ways are resampled, the upper one after its activation, the sum is rescaled."""
    resample = None if fir is None else resampler(2, TAPS if fir else None, up).double()
    own, x, embedding = block(resample, rescale, 8, outputs), normal(2, 8, 6, 4), normal(2, 16)
    change = resample or (lambda h: h)
    h = change(F.silu(F.group_norm(x, own.norm1.num_groups, own.norm1.weight, own.norm1.bias)))
    h = F.conv2d(h, own.conv1.weight, own.conv1.bias, padding=1)
    scale, shift = (embedding @ own.modulation.weight.T + own.modulation.bias).split(outputs, dim=1)
    h = F.group_norm(h, own.norm2.num_groups, own.norm2.weight, own.norm2.bias)
    h = F.silu(h * (1 + scale.view(2, -1, 1, 1)) + shift.view(2, -1, 1, 1))
    h = F.conv2d(h, own.conv2.weight, own.conv2.bias, padding=1)
    skip = change(x)
    if outputs != 8:
        skip = torch.einsum("oi,bixy->boxy", own.skip.weight.squeeze(), skip) + own.skip.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(own(x, embedding), (skip + h) * (HALF if rescale else 1))


@pytest.mark.parametrize("rescale", [False, True])
def test_self_attention(rescale):
    """Heads of 64 channels, softmax(q k / sqrt 64) v, added to the input."""
    own = randomise(SelfAttention(BlockOptions(1, 16, 0.0, rescale), 128))
    x = normal(2, 128, 5)
    h = F.group_norm(x, own.norm.num_groups, own.norm.weight, own.norm.bias)
    h = torch.einsum("oi,bin->bon", own.qkv.weight.squeeze(), h) + own.qkv.bias.view(1, -1, 1)
    q, k, v = h.view(2, 3, 2, 64, 5).unbind(1)
    weights = (torch.einsum("bhcn,bhcm->bhnm", q, k) / 8).softmax(-1)
    mixed = torch.einsum("bhnm,bhcm->bhcn", weights, v).reshape(2, 128, 5)
    out = torch.einsum("oi,bin->bon", own.out.weight.squeeze(), mixed) + own.out.bias.view(1, -1, 1)
    torch.testing.assert_close(own(x), (x + out) * (HALF if rescale else 1))


def test_rescaled_sums_keep_unit_variance():
    generator = torch.Generator().manual_seed(0)
    x = plain = torch.randn(100_000, generator=generator)
    for _ in range(20):
        branch = torch.randn(100_000, generator=generator)
        x, plain = residual_sum(x, branch, True), residual_sum(plain, branch, False)
    assert x.var().item() == pytest.approx(1, rel=0.02)
    assert plain.var().item() == pytest.approx(21, rel=0.02)


def test_groups():
    for channels in range(1, 300):
        groups = groups_of(channels)
        assert channels % groups == 0
        assert groups <= 32
        if groups == 1:
            assert all(channels % divisor for divisor in range(2, min(32, channels // 2) + 1)), "only where it must"
    powers = {16: 4, 32: 8, 64: 16, 96: 8, 128: 32, 256: 32, 384: 32}
    assert {channels: groups_of(channels) for channels in powers} == powers, "those that trained networks have"
    assert [groups_of(channels) for channels in (12, 20, 25, 37)] == [6, 10, 5, 1]


def test_heads():
    heads = {c: SelfAttention(BlockOptions(1, 8, 0.0, False), c).heads for c in (8, 64, 127, 128, 200, 320, 338)}
    assert heads == {8: 1, 64: 1, 127: 1, 128: 2, 200: 2, 320: 5, 338: 2}
