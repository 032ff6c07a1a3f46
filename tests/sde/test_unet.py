"""The U-Net's options by their formulas, its sizes and names, and what it says of numbers that do not fit."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F

from sde.networks import classifier, unet
from sde.networks.embedding import fourier_frequencies
from sde.networks.resample import TAPS, Resample, resampler
from sde.networks.unet import UNet, UNetEncoder
from sde.networks.unet_options import UNetOptions
from tests.batteries.networks import NCSNPP, normal, randomise

HALF = math.sqrt(0.5)


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("shape", [(3, 9), (3, 8, 12), (2, 4, 5, 8)])
def test_progressive_input(shape, rescale):
    """h_1 = down(h_0) + project(filter(x)), and h_2 = down(h_1) + project(filter(h_1 as it was after that sum))."""
    options = {"resampling": "fir", "skip_rescale": rescale, "progressive_input": "residual"}
    encoder = randomise(UNet(shape, channels=8, channel_mult=(1, 2, 2), num_res_blocks=1, **options).encoder)
    x, factor = normal(2, *shape), HALF if rescale else 1
    skips, *_ = encoder(x, torch.zeros(2, dtype=torch.float64))
    low_pass = Resample(len(shape) - 1).double()
    missing = [part for size in reversed(shape[1:]) for part in (0, -size % 4)]
    projected = F.pad(x, missing)
    for level in (1, 2):
        down = encoder.downs[level - 1](low_pass(skips[level - 1][-1]))
        expected = (down + encoder.projections[level - 1](low_pass(projected))) * factor
        torch.testing.assert_close(skips[level][0], expected)
        projected = expected


@pytest.mark.parametrize("resampling", ["conv", "fir"])
@pytest.mark.parametrize("resample_blocks", [False, True])
def test_ways_down_and_up(resampling, resample_blocks):
    """What stands between two levels: a filter before a convolution, or a block that resamples."""
    network = UNet((2, 8, 12), channels=8, num_res_blocks=1, resampling=resampling, resample_blocks=resample_blocks)
    x, zero, seen = normal(2, 2, 8, 12), torch.zeros(2, dtype=torch.float64), {}
    network.levels[0][-1].register_forward_hook(lambda module, args, out: seen.update(low=out))
    network.levels[1][0].register_forward_pre_hook(lambda module, args: seen.update(high=args[0]))
    randomise(network)(x, zero)
    levels, embedding, _ = network.encoder(x, zero)
    down, up, fir = network.encoder.downs[0], network.ups[0], resampling == "fir"
    above, below, low = levels[0][-1], levels[1][0], seen["low"]
    if resample_blocks:
        fallen, risen = down(above, embedding), up(low, embedding)
        assert isinstance(down.resample, Resample) == isinstance(up.resample, Resample) == fir
    else:
        filtered = Resample(2).double()(above) if fir else above
        fallen = F.conv2d(filtered, down.weight, down.bias, stride=1 if fir else 2, padding=1)
        risen = F.conv2d(resampler(2, TAPS if fir else None, up=True).double()(low), up.weight, up.bias, padding=1)
    torch.testing.assert_close(below, fallen)
    torch.testing.assert_close(seen["high"], torch.cat([risen, above], dim=1))


def test_fourier_features_have_the_kernel_of_their_scale():
    """cos features of c and c + d have the mean product E cos(2 pi scale w d) / 2 = exp(-2 (pi scale d)^2) / 2."""
    frequencies = fourier_frequencies(200_000, 16.0)
    for distance in (0.002, 0.008, 0.02):
        kernel = (frequencies * distance).cos().mean().item()
        assert kernel == pytest.approx(math.exp(-2 * (math.pi * 16 * distance) ** 2), abs=0.005)


def test_fourier_features_leave_the_random_state_alone_and_are_stored():
    before = torch.random.get_rng_state()
    frequencies = fourier_frequencies(8, 16.0)
    assert torch.equal(torch.random.get_rng_state(), before)
    network = UNet((1, 8), channels=8, noise_embedding="fourier")
    assert torch.equal(network.state_dict()["encoder.embedding.noise.frequencies"], frequencies)


BLOCK = ["norm1", "conv1", "modulation", "norm2", "conv2"]


def test_names_of_the_default_network():
    """A file of weights of an earlier version must load: no option may rename what there is without it."""
    expected = {"encoder.embedding.noise.frequencies"}
    modules = ["encoder.embedding.noise.layers.0", "encoder.embedding.noise.layers.2", "encoder.stem", "norm", "head"]
    modules += ["encoder.downs.0", "ups.0"]
    modules += [f"encoder.levels.{level}.0.block.{part}" for level in (0, 1) for part in BLOCK]
    modules += [f"levels.{level}.{stage}.block.{part}" for level in (0, 1) for stage in (0, 1) for part in BLOCK]
    modules += [f"levels.{level}.{stage}.block.skip" for level in (0, 1) for stage in (0, 1)]
    modules += [f"middle.{stage}.block.{part}" for stage in (0, 1) for part in BLOCK]
    attended = ["encoder.levels.1.0", "middle.0", "levels.0.0", "levels.0.1"]
    modules += [f"{stage}.attention.{part}" for stage in attended for part in ("norm", "qkv", "out")]
    modules += ["encoder.levels.1.0.block.skip"]
    expected |= {f"{module}.{kind}" for module in modules for kind in ("weight", "bias")}
    names = set(UNet((1, 8, 8), channels=8, num_res_blocks=1, attention_resolutions=(4,)).state_dict())
    assert names == expected


def count(**options):
    with torch.device("meta"):
        network = UNet((3, 32, 32), None, channels=128, attention_resolutions=(16,), **options)
    return sum(p.numel() for p in network.parameters())


def test_sizes_of_the_literature():
    """The configs' networks: DDPM's 35.7 million, and the 55.7 million that Karras et al. 2022 give both of theirs.

    Ours scale as well as shift by the embedding, and attend in every stage of a level.
    """
    assert count(channel_mult=(1, 2, 2, 2), num_res_blocks=2) == pytest.approx(35.7e6, rel=0.1)
    assert count(channel_mult=(2, 2, 2), num_res_blocks=4, **NCSNPP) == pytest.approx(55.7e6, rel=0.12)


@pytest.mark.parametrize(("module", "network"), [(unet, unet.UNet), (classifier, classifier.UNetClassifier)])
def test_every_option_reaches_the_encoder(monkeypatch, module, network):
    options = {
        "channels": 16,
        "channel_mult": (1, 2, 2),
        "num_res_blocks": 1,
        "attention_resolutions": (4,),
        "dropout": 0.3,
        **NCSNPP,
    }
    options |= {"fourier_scale": 5.0, "activation_checkpointing": True}
    seen = []

    def encoder(event_shape, num_classes, options, *conditions):
        seen.append(options)
        return UNetEncoder(event_shape, num_classes, options, *conditions)

    monkeypatch.setattr(module, "UNetEncoder", encoder)
    # Classifiers are told no sequence.
    own = {"sequence_layers": 2} if network is unet.UNet else {}
    network((1, 8, 8), 4, **options, **own)
    assert vars(seen[0]) == {"sequence_layers": 0} | options | own
    assert options == {key: value for key, value in options.items() if value != getattr(UNetOptions(), key)}


def test_attention_at_chosen_resolutions():
    small = {"channels": 8, "channel_mult": (1, 2, 2), "num_res_blocks": 1}
    assert UNet((1, 28, 20), **small, attention_resolutions=(14,)).encoder.attended == [False, True, False]
    with pytest.raises(ValueError, match="resolutions are 28, 14, 7"):
        UNet((1, 28, 28), channels=8, channel_mult=(1, 2, 2), attention_resolutions=(16,))


def test_attention_mixes_distant_positions():
    network = UNet((1, 16), channels=8, channel_mult=(1,), num_res_blocks=1, attention_resolutions=(16,)).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(1, 1, 16, dtype=torch.float64)
    moved = x.clone()
    moved[..., 15] += 1
    zero = torch.zeros(1, dtype=torch.float64)
    assert (network(moved, zero) - network(x, zero))[..., 0].abs() > 1e-6


def test_unknown_names():
    with pytest.raises(ValueError, match="resampling = 'firs': needs one of conv, fir"):
        UNet((1, 8, 8), resampling="firs")
    with pytest.raises(ValueError, match="progressive_input = 'sum': needs one of none, residual"):
        UNet((1, 8, 8), progressive_input="sum")
    with pytest.raises(ValueError, match="noise_embedding = 'rff': needs one of sinusoidal, fourier"):
        UNet((1, 8, 8), noise_embedding="rff")
    with pytest.raises(ValueError, match=r"fourier_scale = 0\.0: needs a positive number"):
        UNet((1, 8, 8), noise_embedding="fourier", fourier_scale=0.0)


def test_numbers_that_do_not_fit():
    with pytest.raises(ValueError, match=r"use network mlp for vectors"):
        UNet((5,))
    with pytest.raises(ValueError, match="channels = 0: needs whole numbers from 1"):
        UNet((1, 8), channels=0)
    with pytest.raises(ValueError, match=r"channel_mult = \(1, 0\): needs"):
        UNet((1, 8), channel_mult=(1, 0))
    with pytest.raises(ValueError, match=r"channel_mult = \(\): needs"):
        UNet((1, 8), channel_mult=())
    with pytest.warns(UserWarning, match="channels = 7 can be normalized in one group only: a multiple of 8"):
        UNet((1, 8), channels=7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        UNet((1, 8), channels=12)
