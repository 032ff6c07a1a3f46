"""The U-Net with a mapping network: its blocks by their formulas, its levels, its patches."""

import pytest
import torch
import torch.nn.functional as F

from sde.networks.attention import Context
from sde.networks.mapped_blocks import (
    AdaptiveGroupNorm,
    MappedAttention,
    MappedBlock,
    MappedCrossAttention,
    patches_of,
    positions_of,
)
from sde.networks.mapped_embedding import TokenInput
from sde.networks.mapped_unet import MappedUNet
from sde.networks.resample import TAPS, Resample
from tests.batteries.networks import normal, randomise

SMALL = {"widths": (8, 16), "depths": (1, 1), "mapping_width": 16}


@pytest.mark.parametrize(("channels", "groups"), [(8, 1), (64, 2), (96, 3), (40, 1), (66, 2)])
def test_norm(channels, groups):
    """norm(x) (1 + scale) + shift, the scale first, in groups of 32 channels."""
    torch.manual_seed(0)
    norm, x, embedding = randomise(AdaptiveGroupNorm(5, channels)), normal(2, channels, 3, 4), normal(2, 5)
    x[0] *= 1e-3
    h = x.view(2, groups, -1)
    h = (h - h.mean(2, keepdim=True)) / (h.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
    scale, shift = norm.modulation(embedding)[:, :, None, None].split(channels, 1)
    torch.testing.assert_close(norm(x, embedding), h.view(x.shape) * (1 + scale) + shift)


@pytest.mark.parametrize("outputs", [8, 6])
def test_block(outputs):
    torch.manual_seed(0)
    block, x, embedding = randomise(MappedBlock(2, 5, 8, outputs, 10, 0.0)), normal(2, 8, 4, 4), normal(2, 5)
    h = F.conv2d(F.gelu(block.norm1(x, embedding)), block.conv1.weight, block.conv1.bias, padding=1)
    h = F.conv2d(F.gelu(block.norm2(h, embedding)), block.conv2.weight, block.conv2.bias, padding=1)
    skip = x if outputs == 8 else torch.einsum("oc,bchw->bohw", block.skip.weight[:, :, 0, 0], x)
    torch.testing.assert_close(block(x, embedding), skip + h)


@pytest.mark.parametrize(("channels", "heads"), [(8, 1), (128, 2)])
def test_attention(channels, heads):
    """In heads of 64 channels; queries, keys and values one after the other, each by heads."""
    torch.manual_seed(0)
    layer, x, embedding = randomise(MappedAttention(2, 5, channels, 0.0)), normal(2, channels, 2, 3), normal(2, 5)
    parts = torch.einsum("oc,bchw->bohw", layer.qkv.weight[:, :, 0, 0], layer.norm(x, embedding))
    parts = parts + layer.qkv.bias[:, None, None]
    q, k, v = (part.view(2, heads, channels // heads, 6) for part in parts.split(channels, 1))
    weights = (torch.einsum("bhci,bhcj->bhij", q, k) / (channels // heads) ** 0.5).softmax(3)
    mixed = torch.einsum("bhij,bhcj->bhci", weights, v).reshape(2, channels, 2, 3)
    expected = x + torch.einsum("oc,bchw->bohw", layer.out.weight[:, :, 0, 0], mixed) + layer.out.bias[:, None, None]
    for fused in (False, True):
        torch.testing.assert_close(layer(x, embedding, fused), expected)


def test_attention_to_tokens():
    """x + attention(norm(x)) to normalized tokens; those that are not there do not count, and a sequence without any
    has one learned token."""
    torch.manual_seed(0)
    tokens, layer = randomise(TokenInput(3, 5)), randomise(MappedCrossAttention(5, 8, 3, 0.0))
    x, embedding, sequence = normal(3, 8, 2, 2), normal(3, 5), normal(3, 4, 3)
    gone = sequence.clone()
    gone[1, 2:] = gone[2] = torch.nan
    for row, there in enumerate((sequence[:1], sequence[1:2, :2], tokens.null.view(1, 1, 3))):
        context = Context(layer.context_norm(there), torch.ones(1, 1, 1, there.shape[1], dtype=torch.bool))
        h = layer.attention(layer.norm(x, embedding).flatten(2).mT[row : row + 1], context)
        expected = x[row] + h.mT.view(8, 2, 2)
        torch.testing.assert_close(layer(x, embedding, tokens(gone)[0])[row], expected)


@pytest.mark.parametrize("shape", [(2, 8), (2, 4, 6), (1, 2, 4, 2)], ids=str)
def test_reflecting_resampling(shape):
    """Down: y[i] = sum_k TAPS[k] x[2 i - 1 + k]; up: y[j] = sum_i 2 TAPS[j + 1 - 2 i] x[i], with x[-1] = x[1]; both
    keep constants, also at borders."""
    x, dims = normal(2, *shape), len(shape) - 1
    down, up = Resample(dims, reflect=True).double(), Resample(dims, up=True, reflect=True).double()
    one = torch.ones_like(x)
    torch.testing.assert_close(down(one), torch.ones(2, shape[0], *(n // 2 for n in shape[1:]), dtype=one.dtype))
    torch.testing.assert_close(up(one), torch.ones(2, shape[0], *(n * 2 for n in shape[1:]), dtype=one.dtype))
    if dims == 1:
        value = lambda row, i: row[-i if i < 0 else (2 * len(row) - 2 - i if i >= len(row) else i)]  # noqa: E731
        halved = [[sum(TAPS[k] * value(row, 2 * i - 1 + k) for k in range(4)) for i in range(4)] for row in x[0]]
        torch.testing.assert_close(down(x)[0], torch.tensor(halved, dtype=x.dtype))
        doubled = [
            [sum(2 * TAPS[j + 1 - 2 * i] * value(row, i) for i in range(-1, 9) if 0 <= j + 1 - 2 * i < 4)
             for j in range(16)] for row in x[0]
        ]  # fmt: skip
        torch.testing.assert_close(up(x)[0], torch.tensor(doubled, dtype=x.dtype))


@pytest.mark.parametrize("shape", [(2, 6), (3, 4, 6), (1, 2, 4, 6)], ids=str)
def test_patches(shape):
    x = normal(2, *shape)
    patches = patches_of(x, 2)
    assert patches.shape == (2, shape[0] * 2 ** (len(shape) - 1), *(n // 2 for n in shape[1:]))
    assert torch.equal(positions_of(patches, 2), x)
    if len(shape) == 3:
        assert torch.equal(patches, F.pixel_unshuffle(x, 2))


def test_levels():
    """Blocks and skips of two levels, by hand: attention behind each block, the coarser level halved and doubled."""
    torch.manual_seed(0)
    network = randomise(MappedUNet((2, 4, 4), depths=(1, 2), widths=(8, 16), mapping_width=16, attended_levels=(1,)))
    x, c_noise = normal(2, 2, 4, 4), normal(2)
    embedding = network.embedding(x, c_noise)[1]
    angles = c_noise[:, None] * network.embedding.noise.frequencies.T
    layers = network.embedding.mapping
    h = F.gelu(layers[0](torch.cat([angles.cos(), angles.sin()], 1)))
    torch.testing.assert_close(embedding, F.gelu(layers[2](h)))
    (first,), coarse = network.down
    assert first.attention is None
    assert all(stage.attention is not None for stage in coarse)
    fine = h = first.block(network.stem(x), embedding)
    h = network.halves[0](h)
    for stage in (*coarse, *network.up[1]):
        h = stage.attention(stage.block(h, embedding), embedding)
    h = network.up[0][0].block(torch.cat([network.doubles[0](h), fine], 1), embedding)
    torch.testing.assert_close(network(x, c_noise), network.head(h))


def test_log_variance_is_left_out():
    torch.manual_seed(0)
    options = SMALL | {"log_variance": True, "patch_size": 2}
    network, x, zero = randomise(MappedUNet((2, 8, 8), **options)), normal(1, 2, 8, 8), torch.zeros(1).double()
    plain = network(x, zero)
    assert network.head.out_channels == 9
    with torch.no_grad():
        network.head.weight[8] += 1
    assert torch.equal(network(x, zero), plain)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"depths": (1, 2, 3)}, r"depths = \(1, 2, 3\): needs one value, or one for each of the 2 levels"),
        ({"attended_levels": (2,)}, r"attended_levels = \(2,\): the levels are numbered from 0 to 1"),
        ({"crossed_levels": (-1,)}, r"crossed_levels = \(-1,\): the levels are numbered from 0 to 1"),
        ({"widths": (0, 8)}, r"widths = \(0, 8\): needs whole numbers from 1"),
    ],
)
def test_options_that_do_not_fit(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        MappedUNet((1, 8, 8), **SMALL | options)
