"""Order of convergence of every sampler on every process, against exact Gaussian answers in float64.

A deterministic sampler is compared with the exact flow. A stochastic one is, on a Gaussian model, an affine map of the
starting point and of the noises it draws: zero noise gives the mean, unit impulses the variance, without sampling.
"""

import math

import pytest
import torch

from samplers import (
    DDIM,
    GRIDS,
    PREDICTORS,
    SAMPLERS,
    Ancestral,
    AnnealedLangevin,
    DPMSolverPP,
    ExponentialAdams,
    PredictorCorrector,
    ReverseSDE,
    SASolver,
    UniPC,
    sample,
)
from samplers.numerics.exponential import PREDICTIONS
from tests.oracles.exact import Gaussian

MEAN, STD = 0.7, 0.5
STEPS = (64, 128, 256)
MEASURED = {1: 0.9, 2: 1.8, 3: 2.7, 4: 3.5}
"""What a claimed order must measure at least."""

VARIANTS = {name: factory() for name, factory in SAMPLERS.items()} | {
    # Its paths are drawn slowly: a loose tolerance does for what is asked here.
    "reverse_sde": ReverseSDE(0.1, 0.1),
    "ancestral-beta": Ancestral("beta"), "ddim-eta": DDIM(0.5), "ddim-1": DDIM(1.0),
    **{f"deis-{k}-{kind}": ExponentialAdams(k, kind) for k in (1, 2, 3, 4) for kind in PREDICTIONS},
    **{f"unipc-{k}-{kind}": UniPC(k, kind) for k in (1, 2, 3) for kind in PREDICTIONS},
    **{f"dpmpp-{k}{'s' * single}": DPMSolverPP(k, single) for k in (1, 2, 3) for single in (False, True)},
    **{f"sa_solver-{k}m": SASolver(k) for k in (1, 3)}, "sa_solver-eta": SASolver(2, eta=0.4),
    "sa_solver-1-noise": SASolver(1, "noise"), "sa_solver-3-noise": SASolver(3, "noise"),
    # With a corrector that hardly moves, the order of the pair is that of its predictor.
    **{f"pc-{name}": PredictorCorrector(kind(), AnnealedLangevin(1e-12)) for name, kind in PREDICTORS.items()},
}  # fmt: skip
ORDERED = {name: sampler for name, sampler in VARIANTS.items() if sampler.order and name != "pc"}


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

    One run tells: its rows start at 0, at 1, and at 0 with a unit impulse in one of the draws.
    """
    sde = model.sde
    mean = sde.alpha(times[0]) * MEAN
    variance = (sde.alpha(times[0]) * STD) ** 2 + sde.sigma(times[0]) ** 2
    x = torch.zeros(2 + draws(sampler, times, sde), 1, dtype=torch.float64)
    x[1] = 1
    ends = sample(model, sampler, x, times, Impulses(), denoise=False)[:, 0]
    offset, gains = ends[0], ends[1:] - ends[0]
    return (offset + gains[0] * mean).item(), (gains[0] ** 2 * variance + gains[1:].square().sum()).item()


def grid(process, steps):
    """Uniform in the log-SNR but for the first step, which begins with ever smaller ones: a multistep method starts at
    order 1, whose error would otherwise be seen beyond its own."""
    log_snr = process.log_snr(GRIDS["log_snr"](process, steps))
    first = log_snr[0] + log_snr.diff()[0] * 0.5 ** torch.arange(8, 0, -1)
    return process.t_of_log_snr(torch.cat([log_snr[:1], first, log_snr[1:]]))


@pytest.mark.parametrize("name", ORDERED)
def test_order(name, process):
    sampler, model = ORDERED[name], gaussian(process)
    grids = [grid(process, n) for n in STEPS]
    errors = []
    for times in grids:
        if draws(sampler, grids[0][:2], process):
            end = times[-1]
            mean, variance = moments(model, sampler, times)
            exact = (process.alpha(end) * STD) ** 2 + process.sigma(end) ** 2
            errors.append(abs(mean - process.alpha(end).item() * MEAN) + abs(variance - exact.item()))
        else:
            x = torch.tensor([[-1.3], [0.4], [2.0]], dtype=torch.float64) * process.prior_std()
            out = sample(model, sampler, x, times, denoise=False)
            errors.append((out - model.flow(x, times[0], times[-1])).abs().max().item())
    assert slope(errors) > MEASURED[sampler.order], errors
