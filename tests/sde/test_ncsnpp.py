"""NCSN++ by its formulas, with each option; what it is told of classes and augmentations."""

import pytest
import torch

from sde.networks.ncsnpp import NCSNpp
from sde.networks.ncsnpp_options import NCSNppOptions
from tests.batteries.networks import randomise
from tests.oracles.ncsnpp import ncsnpp

SMALL = {"channels": 8, "num_res_blocks": 1, "attention_resolutions": (4,), "fourier_scale": 1.0}
DDPM = {
    "resampling": "conv",
    "resample_blocks": False,
    "progressive_input": "none",
    "skip_rescale": False,
    "embedding_type": "positional",
    "features_mult": 1,
    "group_channels": 2,
}
DDPMPP = {"fir_kernel": (1, 1), "progressive_input": "none", "embedding_type": "positional", "features_mult": 1}
CASES = {
    "ddpm": DDPM,
    "ddpm without convolutions": DDPM | {"resample_conv": False, "num_res_blocks": 2},
    "ddpm++": DDPMPP,
    "ddpm++ with pyramids": DDPMPP | {"progressive_input": "residual", "progressive_output": "residual"},
    "ncsn++": {},
    "three levels": {"channel_mult": (1, 1, 2), "num_res_blocks": 2, "attention_resolutions": (8, 2)},
    "skips": {"progressive_input": "skip", "progressive_output": "skip", "channel_mult": (1, 2, 2)},
    "joined": {"progressive_input": "skip", "progressive_combine": "cat", "learned_variance": True},
    "residual output": {"progressive_output": "residual", "skip_rescale": False, "channel_mult": (1, 2, 2)},
    "filters before convolutions": {"resample_blocks": False, "fir_kernel": (1, 5, 10, 10, 5, 1)},
    "no filters": {"resampling": "conv", "progressive_input": "residual", "progressive_output": "skip"},
    "adaptive": {"adaptive": True, "embedding_mult": 2, "features_mult": 1},
    "scaled": {"scale_by_sigma": True, "log_sigma": (1.0, 0.5), "centered": False, "frequency_unit": "cycle"},
}


@pytest.mark.parametrize("case", CASES)
def test_the_formulas(case):
    torch.manual_seed(0)
    options = SMALL | CASES[case]
    network = randomise(NCSNpp((3, 8, 8), 4, augment_dim=2, **options))
    x, c_noise = torch.randn(3, 3, 8, 8).double(), torch.tensor([-1.0, 0.5, 2.0]).double()
    labels, augmentation = torch.tensor([2, -1, 0]), torch.randn(3, 2).double()
    expected = ncsnpp(network.state_dict(), NCSNppOptions(**options), x, c_noise, labels, augmentation)
    found = network(x, c_noise, {"labels": labels, "augmentation": augmentation})
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * expected.abs().max().item())


def test_augmentation_may_be_left_out():
    network = randomise(NCSNpp((1, 8, 8), augment_dim=3, **SMALL))
    x, c_noise = torch.randn(2, 1, 8, 8).double(), torch.zeros(2).double()
    plain = network(x, c_noise, None)
    torch.testing.assert_close(network(x, c_noise, {"augmentation": torch.zeros(2, 3)}), plain)
    told = network(x, c_noise, {"augmentation": torch.tensor([[0.0, 0, 0], [1, 0, 0]])})
    assert ((told - plain).abs().amax((1, 2, 3)) > 1e-6).tolist() == [False, True]
    with pytest.raises(ValueError, match=r"augmentation has shape \(2, 2\): this network takes \(B, 3\)"):
        network(x, c_noise, {"augmentation": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match="the model is unconditional"):
        randomise(NCSNpp((1, 8, 8), **SMALL))(x, c_noise, {"augmentation": torch.zeros(2, 3)})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"progressive_output": "input_skip"}, "progressive_output = 'input_skip': needs one of none, skip, residual"),
        ({"embedding_type": "sinusoidal"}, "embedding_type = 'sinusoidal': needs one of positional, fourier"),
        ({"fir_kernel": (1, 2, 1)}, r"fir_kernel = \(1, 2, 1\): needs an even number of symmetric taps"),
        ({"fir_kernel": (1, 2)}, r"fir_kernel = \(1, 2\): needs an even number of symmetric taps"),
        ({"channels": 7, "features_mult": 1}, "channels = 7 with features_mult = 1: needs an even product"),
        ({"log_sigma": (1.0,)}, r"log_sigma = \(1.0,\): needs the two numbers of a line"),
        ({"attention_resolutions": (5,)}, "attention at resolution 5: the resolutions are 8, 4"),
        ({"channel_mult": (1, 0)}, r"channel_mult = \(1, 0\): needs whole numbers from 1"),
    ],
)
def test_refused_options(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        NCSNpp((1, 8, 8), **options)
