"""Order of convergence of every sampler on every process, against exact Gaussian answers in float64.

A deterministic sampler is compared with the exact flow. A stochastic one is, on a Gaussian model, an affine map of the
starting point and of the noises it draws: zero noise gives the mean, unit impulses the variance, without sampling.
"""

import math
from itertools import pairwise

import pytest
import torch

from samplers import DDIM, GRIDS, PREDICTORS, SAMPLERS, Ancestral, Langevin, PredictorCorrector, sample
from sde import VPSDE
from tests.exact import Gaussian

MEAN, STD = 0.7, 0.5
STEPS = (32, 64, 128)

VARIANTS = {name: factory() for name, factory in SAMPLERS.items()} | {
    "ancestral-beta": Ancestral("beta"), "ddim-eta": DDIM(0.5), "ddim-1": DDIM(1.0),
    # With a corrector that hardly moves, the order of the pair is that of its predictor.
    **{f"pc-{name}": PredictorCorrector(predictor(), Langevin(1e-6)) for name, predictor in PREDICTORS.items()},
}  # fmt: skip
ORDERED = {name: sampler for name, sampler in VARIANTS.items() if sampler.order and name != "pc"}


def gaussian(sde):
    return Gaussian(sde, torch.tensor([MEAN], dtype=torch.float64), STD)


def slope(errors):
    """Order from the errors at a doubling number of steps; infinite where the method is exact to rounding."""
    if max(errors) < 1e-9:
        return math.inf
    return math.log2(errors[-2] / errors[-1])


class Impulse:
    """Noise that is zero but for a unit in one draw."""

    def __init__(self, at=None):
        self.at, self.draws = at, 0

    def __call__(self, x):
        self.draws += 1
        return torch.ones_like(x) if self.draws - 1 == self.at else torch.zeros_like(x)


def moments(model, sampler, times):
    """Mean and variance at times[-1] when x starts from the exact marginal at times[0]."""
    sde = model.sde
    mean = sde.alpha(times[0]) * MEAN
    variance = (sde.alpha(times[0]) * STD) ** 2 + sde.sigma(times[0]) ** 2
    carry = None
    for t, s in pairwise(times):
        count = Impulse()
        ends = torch.stack([mean.new_zeros(1), mean.new_ones(1)])
        moved, _ = sampler.step(model, ends, t, s, count, carry)
        offset, factor = moved[0], moved[1] - moved[0]
        gains = [sampler.step(model, ends[:1], t, s, Impulse(k), carry)[0] - offset for k in range(count.draws)]
        mean, variance = offset + factor * mean, factor**2 * variance + sum(g.square() for g in gains)
    return mean.item(), variance.item()


def stochastic(sampler):
    count = Impulse()
    model = gaussian(VPSDE())
    t, s = GRIDS["log_snr"](model.sde, 4)[:2]
    sampler.step(model, torch.zeros(1, 1, dtype=torch.float64), t, s, count)
    return count.draws > 0


@pytest.mark.parametrize("name", ORDERED)
def test_order(name, process):
    sampler, model = ORDERED[name], gaussian(process)
    grids = [GRIDS["log_snr"](process, n) for n in STEPS]
    errors = []
    for times in grids:
        if stochastic(sampler):
            end = times[-1]
            mean, variance = moments(model, sampler, times)
            exact = (process.alpha(end) * STD) ** 2 + process.sigma(end) ** 2
            errors.append(abs(mean - process.alpha(end).item() * MEAN) + abs(variance - exact.item()))
        else:
            x = torch.tensor([[-1.3], [0.4], [2.0]], dtype=torch.float64) * process.prior_std()
            out = sample(model, sampler, x, times, denoise=False)
            errors.append((out - model.flow(x, times[0], times[-1])).abs().max().item())
    assert slope(errors) > sampler.order - 0.35, errors
