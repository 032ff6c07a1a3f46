"""An open noise end, alpha(t_max) = 0: laws with every sampler of fixed steps, densities and latents are exact."""

import pytest
import torch

from samplers import GRIDS, SAMPLERS, SCORE_SAMPLERS, encode, generate, log_likelihood, plan, sample
from samplers.encode import decode
from samplers.grid import make_grid
from sde import GVPSDE, SDE, ChainSDE, FlowSDE
from tests.batteries.tiers import ADAPTIVE
from tests.oracles.affine import MEAN, STD, gaussian, moments
from tests.oracles.exact import Gaussian, GaussianMixture

OPEN = {
    "flow": FlowSDE(),
    "gvp": GVPSDE(),
    "linear": ChainSDE(zero_terminal_snr=True),
    "cosine": ChainSDE("cosine", max_beta=1.0, zero_terminal_snr=True),
    "short": ChainSDE("linear", 30, 0.01, 0.3, zero_terminal_snr=True),
}
FIXED = [name for name in SCORE_SAMPLERS if name not in (*ADAPTIVE, "langevin")]


@pytest.fixture(params=OPEN)
def sde(request):
    return OPEN[request.param]


@pytest.mark.parametrize(("process", "grid"), [("flow", "uniform"), ("cosine", "log_snr")])
@pytest.mark.parametrize("name", [name for name in FIXED if name != "pc"])
def test_every_sampler_ends_with_the_law_of_the_data(name, process, grid):
    """Mean and variance of N(MEAN, STD^2), propagated exactly; they converge from pure noise, too."""
    sde = OPEN[process]
    model, errors = gaussian(sde), []
    for steps in (25, 100):
        times = make_grid(sde, grid, steps)
        assert times[0] == 1
        mean, variance = moments(model, SAMPLERS[name](), times)
        exact = (sde.alpha(times[-1]) * STD) ** 2 + sde.sigma(times[-1]) ** 2
        errors.append(abs(mean - sde.alpha(times[-1]).item() * MEAN) + abs(variance - exact.item()))
    assert errors[1] < max(0.45 * errors[0], 3e-6), errors
    assert errors[1] < (0.05 if grid == "log_snr" else 0.15), errors


@pytest.mark.parametrize("name", FIXED)
def test_the_first_step_is_that_of_pure_noise(name, sde):
    """x_s = alpha_s D + sigma_s z, of one call, in a network's dtype; a run of one step is D of two."""
    model, calls = GaussianMixture(sde, torch.tensor([[-1.0, 0.5], [2.0, 0.0]]), 0.3), []
    model.register_forward_hook(lambda module, args, output: calls.append(args[1].item()))
    z = torch.randn(5, 2)
    times = torch.tensor([1.0, 0.7], dtype=torch.float64)
    x = sample(model, SAMPLERS[name](), z, times, denoise=False)
    alpha, sigma = sde.alpha(times[1]).item(), sde.sigma(times[1]).item()
    torch.testing.assert_close(x, alpha * torch.tensor([0.5, 0.25]) + sigma * z)
    assert calls == [1.0]


@pytest.mark.parametrize("grid", GRIDS)
def test_grids_begin_at_the_end(grid, sde):
    for steps in (1, 2, 7):
        times = make_grid(sde, grid, steps)
        assert (len(times), times[0], times[-1]) == (steps + 1, 1, sde.t_min)


def test_velocity_at_the_end(sde, generator):
    """The slope of the exact flow there, where f and g^2 are infinite."""
    model = Gaussian(sde, torch.tensor([3.0, -2.0], dtype=torch.float64), 0.4)
    x = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    t, *before = (torch.tensor(1 - gap, dtype=torch.float64) for gap in (0.0, 1e-6, 2e-6))
    once, twice = ((model.flow(x, t, s) - x) / (s - t) for s in before)
    torch.testing.assert_close(model.velocity(x, t), 2 * once - twice, rtol=1e-5, atol=1e-5)
    single = torch.ones(6)
    torch.testing.assert_close(model.velocity(x, single), model.velocity(x, t), rtol=1e-5, atol=1e-5)


def test_adaptive_samplers(sde, generator):
    """The ODE to the exact flow; the SDE to the law."""
    model = Gaussian(sde, torch.tensor([0.7, -0.3], dtype=torch.float64), 0.4)
    z = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    t, s = (torch.tensor(end, dtype=torch.float64) for end in (1.0, sde.t_min))
    out = sample(model, SAMPLERS["ode"](1e-7, 1e-7), z, torch.stack([t, s]), denoise=False)
    torch.testing.assert_close(out, model.flow(z, t, s), rtol=0, atol=2e-5)
    if isinstance(sde, FlowSDE):
        drawn = generate(model, SAMPLERS["reverse_sde"](0.1, 0.1), 12, (2,)).x
        assert (drawn.mean(0) - torch.tensor([0.7, -0.3])).abs().max() < 4 * 0.4 / 12**0.5


def test_likelihood_from_an_open_end(sde, generator):
    """The prior is N(0, sigma^2) of pure noise: no signal is left out, whatever the mean of the data."""
    model = GaussianMixture(sde, torch.tensor([[3.0, -2.0], [4.0, 1.0]], dtype=torch.float64), 0.4)
    x = model.draw(6, generator)
    t = torch.tensor(sde.t_min, dtype=torch.float64)
    found = log_likelihood(model, x, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.nats, model.log_prob(x, t), rtol=0, atol=3e-6)


def test_latents_of_an_open_end(sde, generator):
    model = Gaussian(sde, torch.tensor([3.0, -2.0], dtype=torch.float64), 0.4)
    x = model.draw(6, generator)
    ends = (torch.tensor(end, dtype=torch.float64) for end in (sde.t_min, 1.0))
    latent = encode(model, x, rtol=1e-8, atol=1e-8).latent
    torch.testing.assert_close(latent, model.flow(x, *ends), rtol=0, atol=5e-6)
    torch.testing.assert_close(decode(model, latent, rtol=1e-8, atol=1e-8).x, x, rtol=0, atol=5e-6)


def test_plans_of_an_open_end(sde):
    model = GaussianMixture(sde, torch.tensor([[-0.6, 0.5], [0.5, 0.0]]), 0.15)
    found = plan(model, (2,), 8)
    assert generate(model, found.sampler, 4, (2,), grid=found.times).x.isfinite().all()


def test_an_end_that_is_not_open():
    class Wrong(SDE):
        open_end = True

        def log_alpha(self, t):
            return -t

        def sigma(self, t):
            return t

    with pytest.raises(ValueError, match=r"t_max = 1\.0: an open noise end is where alpha = 0, and here it is not"):
        Wrong()
