"""RePaint: its jumps against the exact law, and what resampling does to replacement."""

import pytest
import torch

from samplers import SAMPLERS, Ancestral, sample
from samplers.grid import make_grid
from samplers.repaint import RePaint
from sde import VPSDE
from sde.inverse.posterior import Replacement
from tests.oracles.exact import Gaussian
from tests.oracles.linear_gaussian import DIM, problem


class Flow:
    """The exact flow of a Gaussian model as a sampler."""

    def step(self, model, x, t, s, noise, carry=None):
        return model.flow(x, t, s), "remembered"


def test_jumps_of_repaint_keep_the_law(process):
    """A step exact in law, a jump and the step again make p_s of p_t: by mean and variance, which are linear here."""
    model = Gaussian(process, torch.tensor([0.4], dtype=torch.float64), 0.6)
    t, s = process.t_of_log_snr(torch.tensor([-1.0, 0.5], dtype=torch.float64)).unbind()

    def run(x, z):
        x = torch.full((1, 1), x, dtype=torch.float64)
        found, carry = RePaint(Flow(), 2).step(model, x, t, s, lambda x: torch.full_like(x, z))
        assert carry is None
        return found.item()

    (mean_t, var_t), (mean_s, var_s) = (
        (0.4 * process.alpha(u).item(), 0.36 * process.alpha(u).item() ** 2 + process.sigma(u).item() ** 2)
        for u in (t, s)
    )
    assert run(mean_t, 0.0) == pytest.approx(mean_s)
    by_x, by_z = run(mean_t + 1, 0.0) - mean_s, run(mean_t, 1.0) - mean_s
    assert by_z > 0
    assert by_x**2 * var_t + by_z**2 == pytest.approx(var_s)


def test_resampling_lessens_the_bias_of_replacement(generator):
    task, sde = problem("mask", 0.0), VPSDE()
    model, times = Replacement(task.prior(sde), task.operator, task.y), make_grid(sde, "log_snr", 50)

    def normal(x):
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    start = normal(torch.empty(1500, DIM, dtype=torch.float64))
    once, often = (task.errors(sample(model, RePaint(Ancestral(), count), start, times, normal)) for count in (1, 10))
    # Standard errors with 1,500 samples: 0.03 of the mean, 0.08 of the covariance.
    assert min(once) > 0.2
    assert often[0] < once[0] / 2
    assert often[1] < once[1]


def test_defaults_are_those_of_the_sampler():
    inner = SAMPLERS["heun"]()
    assert (RePaint(inner).order, RePaint(inner).steps, RePaint(inner).grid) == (inner.order, inner.steps, inner.grid)
    with pytest.raises(ValueError, match="repaint_steps = 0"):
        RePaint(repaint_steps=0)


@pytest.mark.parametrize("name", ["unipc", "ancestral"])
def test_one_resampling_is_the_sampler_with_its_memory(name, generator):
    model = Gaussian(VPSDE(), torch.tensor([0.4, -1.0], dtype=torch.float64), 0.6)
    x, times = torch.randn((3, 2), generator=generator, dtype=torch.float64), make_grid(VPSDE(), "log_snr", 8)
    inner = SAMPLERS[name]()
    found = [sample(model, sampler, x, times, torch.ones_like) for sampler in (RePaint(inner, 1), inner)]
    assert torch.equal(*found)
