"""A free diffusion coefficient of the reverse SDE: its formula, its law from an open noise end on, its bound."""

import math
from itertools import pairwise, product

import pytest
import torch

from samplers import GRIDS, SeededNoise, generate, sample
from samplers.euler import Euler
from samplers.euler_maruyama import EulerMaruyama
from samplers.noise.brownian import BrownianNoise
from samplers.reverse_diffusion import ReverseDiffusion
from samplers.reverse_sde import ReverseSDE, _System
from sde import SDES, VESDE
from tests.oracles.affine import MEAN, STD, Impulses, draws, gaussian
from tests.oracles.exact import Gaussian, GaussianMixture
from tests.oracles.noises import never, unit
from tests.oracles.processes import PROCESSES

FLOW = SDES["flow"]()
FREE = (0.0, "sigma", "sine")
W = {"sigma": lambda t: t, "sine": lambda t: math.sin(math.pi * t) ** 2, 0.7: lambda t: 0.7, "0.7": lambda t: 0.7}
"""w of ``FLOW`` in the notation of SiT, whose sigma is t."""


@pytest.mark.parametrize("diffusion", W)
def test_steps_in_the_notation_of_interpolants(diffusion):
    """Velocity E[z - x_0], score -E[z] / t, x - h (v - w / 2 s) + sqrt(h w) z on the straight path; what is added is
    the same in a step of reverse diffusion, which is that formula on this path."""
    model, (t, s) = Gaussian(FLOW, torch.tensor([0.3], dtype=torch.float64), 0.8), (0.6, 0.58)
    x = torch.tensor([[1.7]], dtype=torch.float64)
    data = 0.3 + (1 - t) * 0.8**2 / ((1 - t) ** 2 * 0.8**2 + t**2) * (x - (1 - t) * 0.3)
    z = (x - (1 - t) * data) / t
    w, times = W[diffusion](t), torch.tensor([t, s], dtype=torch.float64)
    still = x - (t - s) * (z - data + w / 2 * z / t)
    for kind, temperature in product((EulerMaruyama, ReverseDiffusion), (0.0, 0.6, 1.0)):
        moved, _ = kind(temperature=temperature, diffusion=diffusion).step(model, x, *times, unit)
        torch.testing.assert_close(moved, still + temperature * math.sqrt((t - s) * w))


def test_every_eta_scales_it():
    model, times = gaussian(FLOW), torch.tensor([0.6, 0.58], dtype=torch.float64)
    x = torch.tensor([[1.7]], dtype=torch.float64)
    for eta in (0.5, 1.5):
        expected = EulerMaruyama(diffusion=0.7 * eta**2).step(model, x, *times, unit)[0]
        torch.testing.assert_close(EulerMaruyama(eta, diffusion=0.7).step(model, x, *times, unit)[0], expected)


def test_that_of_the_process_and_none(process):
    """w = g^2 is the reverse SDE, w = 0 Euler's step of the probability flow, on every process."""
    model, x = gaussian(process), torch.tensor([[-1.3], [0.4]], dtype=torch.float64)
    t = process.t_of_log_snr(torch.tensor(0.3, dtype=torch.float64))
    s = t - 1e-3 * (t - process.t_min)
    own = EulerMaruyama().step(model, x, t, s, unit)[0]
    torch.testing.assert_close(EulerMaruyama(diffusion=process.g2(t).item()).step(model, x, t, s, unit)[0], own)
    still = Euler().step(model, x, t, s, never)[0]
    torch.testing.assert_close(EulerMaruyama(diffusion=0).step(model, x, t, s, never)[0], still)
    torch.testing.assert_close(EulerMaruyama(0.0, diffusion="sine").step(model, x, t, s, never)[0], still)


@pytest.mark.parametrize("kind", [EulerMaruyama, ReverseDiffusion])
def test_the_first_step_from_an_open_end(kind):
    """It is one like the others: there velocity is x - E[x_0] and score -x, and it draws noise."""
    times, x = torch.tensor([1.0, 0.99], dtype=torch.float64), torch.tensor([[1.7]], dtype=torch.float64)
    moved = sample(gaussian(FLOW), kind(diffusion=0.7), x, times, unit, denoise=False)
    torch.testing.assert_close(moved, x - 0.01 * (x - MEAN + 0.35 * x) + math.sqrt(0.007))


def laws(model, sampler, times):
    """Mean and standard deviation after each step from the law at times[0], exactly, from one run: see ``moments``."""
    sde, found = model.sde, []
    mean = sde.alpha(times[0]).item() * MEAN
    variance = (sde.alpha(times[0]).item() * STD) ** 2 + sde.sigma(times[0]).item() ** 2
    x = torch.zeros(2 + draws(sampler, times, sde), 1, dtype=torch.float64)
    x[1] = 1

    def see(step, s, x):
        offset, gains = x[0, 0], x[1:, 0] - x[0, 0]
        std = (gains[0] ** 2 * variance + gains[1:].square().sum()).sqrt()
        found.append(((offset + gains[0] * mean).item(), std.item()))

    sample(model, sampler, x, times, Impulses(), denoise=False, callback=see)
    return torch.tensor(found, dtype=torch.float64).T


@pytest.mark.parametrize(
    ("name", "kind"), [*product(("flow", "gvp"), (EulerMaruyama, ReverseDiffusion)), ("chain", EulerMaruyama)]
)
def test_the_law_from_an_open_end_on(name, kind):
    """Of the process at every one of 100 uniform steps: standard deviation and mean within 3 %; numbers too."""
    sde = PROCESSES[name]
    model, times = gaussian(sde), GRIDS["uniform"](sde, 100)
    exact = ((sde.alpha(times[1:]) * STD) ** 2 + sde.sigma(times[1:]) ** 2).sqrt()
    # Times of a chain are sought by bisection, which takes long.
    for diffusion in ("sine", 3.0) if name == "chain" else (*FREE, 0.3, 3.0):
        mean, std = laws(model, kind(diffusion=diffusion), times)
        assert (std / exact - 1).abs().max() < 0.03, diffusion
        assert ((mean - sde.alpha(times[1:]) * MEAN) / exact).abs().max() < 0.03, diffusion


@pytest.mark.parametrize(("kind", "diffusion"), [(EulerMaruyama, w) for w in FREE] + [(ReverseDiffusion, "sine")])
def test_a_mixture_from_an_open_end_on(kind, diffusion):
    """Mean and covariance of 10,000 samples of 100 uniform steps within three standard errors and 2 % of the largest
    variance."""
    means, generator = torch.tensor([[-1.0, 0.5], [1.5, 0.0], [0.0, -1.0]]), torch.Generator().manual_seed(0)
    model, n = GaussianMixture(FLOW, means, 0.3, torch.tensor([0.5, 0.2, 0.3])), 10_000

    def noise(x):
        return torch.randn(x.shape, generator=generator)

    x = noise(torch.empty(n, 2))
    drawn = sample(model, kind(diffusion=diffusion), x, GRIDS["uniform"](FLOW, 100), noise).double()
    weights = model.log_weights.double().exp()
    exact = weights @ means.double()
    apart = means.double() - exact
    covariance = 0.3**2 * torch.eye(2, dtype=torch.float64) + (weights * apart.T) @ apart
    slack, off = 0.02 * covariance.diagonal().max(), drawn - exact
    products = off[:, :, None] * off[:, None]
    assert ((drawn.mean(0) - exact).abs() < 3 * drawn.std(0) / n**0.5 + slack).all()
    assert ((products.mean(0) - covariance).abs() < 3 * products.std(0) / n**0.5 + slack).all()


@pytest.mark.parametrize(("kind", "diffusion"), product((EulerMaruyama, ReverseDiffusion), (3.0, 1e6, "sigma")))
def test_near_the_data_a_step_adds_what_it_can_carry(kind, diffusion):
    """Of a single datum the state is its noise, whose standard deviation stays within 5 % of sigma where uniform steps
    are small beside it, and 30 % where the last ones are longer; plain ones of ``sigma`` leave 50 times as much."""
    model = Gaussian(FLOW, torch.zeros(1, dtype=torch.float64), 1e-6)
    for steps in (20, 200):
        times = GRIDS["uniform"](FLOW, steps)
        x, ratios = torch.zeros(2 + steps, 1, dtype=torch.float64), []
        x[1] = 1

        def see(step, s, x, ratios=ratios):
            ratios.append((x[1:].square().sum().sqrt() / FLOW.sigma(s)).item())

        sample(model, kind(diffusion=diffusion), x, times, Impulses(), denoise=False, callback=see)
        assert 0.99 < min(ratios) < max(ratios) < 1.3, ratios
        small = [ratio for ratio, s in zip(ratios, times[1:], strict=True) if s * steps > 25]
        assert all(ratio < 1.05 for ratio in small), small


def test_paths_are_refined():
    """With Brownian noise more steps approach the same sample, from the open end on."""
    seeds, model = range(3), Gaussian(FLOW, torch.full((99,), MEAN, dtype=torch.float64), STD)
    x = SeededNoise(seeds)(torch.empty(3, 99, dtype=torch.float64))
    ends = []
    for steps in (32, 64, 128):
        times, noise = GRIDS["polynomial"](FLOW, steps), BrownianNoise(seeds, FLOW)
        ends.append(sample(model, EulerMaruyama(diffusion="sine"), x, times, noise, denoise=False))
    gaps = [(a - b).square().mean().sqrt().item() for a, b in pairwise(ends)]
    assert 1.5 < gaps[0] / gaps[1] < 2.7, gaps


@pytest.mark.parametrize("diffusion", ["sigma", "sine", 0.4])
def test_the_adaptive_solvers_equation(diffusion):
    """dv of v = x / alpha, by the chain rule from dx = (velocity - w / 2 score) dt + sqrt(w) dw, for VE."""
    sde = VESDE(sigma_min=0.5, sigma_max=20.0)
    model, t = gaussian(sde), torch.tensor(0.37, dtype=torch.float64)
    u, x = 0.5 * sde.log_snr(t), torch.full((1, 1), 0.4, dtype=torch.float64)
    sigma = sde.sigma(t).item()
    w = {"sigma": sigma, "sine": math.sin(math.pi * 0.37) ** 2}.get(diffusion, diffusion)
    norm, rate = math.hypot(1, sigma), -1 / math.log(40.0)
    system = _System(model, x.device, torch.ones(1, dtype=torch.bool), ([u - 1, u + 1], [t, t]), 0, 9, diffusion)
    drift = (model.velocity(x, t) - w / 2 * model.score(x, t)) / norm * rate
    # Of 1 / norm, whose logarithm has the slope -sigma^2 / norm^2 in log sigma.
    drift = drift + x / norm * (sigma / norm) ** 2
    torch.testing.assert_close(system.f(u, x / norm), drift, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(system.g(u, x).view(1, 1) ** 2, torch.full_like(x, -w * rate / norm**2))


def test_the_adaptive_solver_ends_at_the_law():
    dim = 2000
    model = Gaussian(FLOW, torch.full((dim,), MEAN, dtype=torch.float64), STD)
    for diffusion in ("sine", 1.0):
        drawn = generate(model, ReverseSDE(0.05, 0.05, diffusion=diffusion), 1, (dim,))
        assert drawn.x.mean().item() == pytest.approx(MEAN, abs=4 * STD / math.sqrt(dim))
        assert drawn.x.std().item() == pytest.approx(STD, rel=4 / math.sqrt(2 * dim))
        assert drawn.mean_nfe < 500, diffusion


@pytest.mark.parametrize("kind", [EulerMaruyama, ReverseDiffusion, ReverseSDE])
@pytest.mark.parametrize("diffusion", ["cosine", -0.1, math.nan, math.inf, "-1", None])
def test_bad_coefficients(kind, diffusion):
    with pytest.raises(ValueError, match=r"diffusion = .*: needs one of process, sigma, sine, or a number"):
        kind(diffusion=diffusion)
