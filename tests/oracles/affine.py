"""Mean and variance of a sampler's end on a Gaussian model, exactly: every sampler is an affine map there."""

import math

import torch

from samplers import (
    sample,
)
from tests.oracles.exact import Gaussian

MEAN, STD = 0.7, 0.5


def gaussian(sde):
    return Gaussian(sde, torch.tensor([MEAN], dtype=torch.float64), STD)


def slope(errors):
    """Order from the errors at a doubling number of steps; infinite where the method is exact to rounding."""
    if max(errors) < 1e-9:
        return math.inf
    return math.log2(errors[-2] / errors[-1])


class Impulses:
    """Noise that is zero but for a unit in row k + 2 of draw k."""

    def __init__(self):
        self.draws = 0

    def __call__(self, x):
        self.draws += 1
        noise = torch.zeros_like(x)
        noise[self.draws + 1 :][:1] = 1
        return noise


def draws(sampler, times, sde):
    """How often a run asks for noise."""
    count = Impulses()
    sample(gaussian(sde), sampler, torch.zeros(1, 1, dtype=torch.float64), times, count, denoise=False)
    return count.draws


def moments(model, sampler, times):
    """Mean and variance at times[-1] when x starts from the exact marginal at times[0].

    One run tells: its rows start at 0, at 1, and at 0 with a unit impulse in one of the draws; some may have none.
    """
    sde, noise = model.sde, Impulses()
    most = draws(sampler, times[-3:], sde) * len(times)
    mean = sde.alpha(times[0]) * MEAN
    variance = (sde.alpha(times[0]) * STD) ** 2 + sde.sigma(times[0]) ** 2
    x = torch.zeros(2 + most, 1, dtype=torch.float64)
    x[1] = 1
    ends = sample(model, sampler, x, times, noise, denoise=False)[:, 0]
    assert noise.draws <= most
    offset, gains = ends[0], ends[1:] - ends[0]
    return (offset + gains[0] * mean).item(), (gains[0] ** 2 * variance + gains[1:].square().sum()).item()
