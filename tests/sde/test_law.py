"""The law of the data that a posterior mean keeps, by exact denoisers and by one that predicts noise with an error."""

import math

import pytest
import torch

from sde import SDES, VPSDE, Denoiser
from sde.model.law import law_by_level, noise_end
from tests.oracles.exact import Gaussian
from tests.oracles.noise_network import NoiseOfGaussian
from tests.oracles.processes import ending_with_signal

STD, ERROR, DIM, ITEMS = 0.31, 0.0177, 64, 256


def noisy(sde, error=ERROR):
    return Denoiser(NoiseOfGaussian(sde, error, STD), sde, "noise", sigma_data=STD)


def items():
    return STD * torch.randn((ITEMS, DIM), generator=torch.Generator().manual_seed(4), dtype=torch.float64)


@pytest.mark.parametrize("name", SDES)
def test_exact_posterior_means_keep_the_law(name):
    sde = ending_with_signal(SDES[name]())
    for model in (Gaussian(sde, torch.zeros(DIM).double(), STD), noisy(sde, 0.0)):
        levels = list(law_by_level(model, items()))
        assert all(level.kept and not level.left for level in levels)
        for level in levels[::6]:
            share = STD**2 / (STD**2 + level.noise_level**2)
            rate = math.sqrt(2 / ITEMS / DIM)
            # About the mean of the items, which is as far from 0 as means of so many are.
            expected = math.hypot(STD * math.sqrt(share), items().mean(0).square().mean().sqrt().item())
            assert level.std == pytest.approx(expected, rel=0.1)
            assert level.error == pytest.approx(1 - share, abs=8 * rate)
        assert noise_end(model, items()) is None


def test_the_error_of_predicted_noise_is_that_over_alpha():
    sde = VPSDE()
    levels = list(law_by_level(noisy(sde), items()))
    off = [ERROR * level.noise_level for level in levels]
    assert levels[0].std == pytest.approx(off[0], rel=0.01), "2.7, where the data have 0.31"
    assert levels[0].error == pytest.approx(1 + (off[0] / STD) ** 2, rel=0.05)
    first, kept = noise_end(noisy(sde), items())
    assert first == levels[0]
    assert kept == next(level for level in levels if level.kept)
    above = levels[levels.index(kept) - 1]
    # E|D - x_0|^2 of the exact D, and the error added to it.
    law = [STD**2 / (STD**2 + level.noise_level**2) for level in (above, kept)]
    expected = [1 - share + (ERROR * at.noise_level / STD) ** 2 for share, at in zip(law, (above, kept), strict=True)]
    assert expected[0] > 1.15
    assert expected[1] < 1.25


def test_nothing_is_said_where_nothing_is_known():
    sde = VPSDE()
    assert noise_end(noisy(sde), torch.zeros(8, DIM)) is None, "data that are all the same"
    assert noise_end(noisy(sde, 1e6), items()) is None, "no level at which it is any better"
