"""Stochastic samplers: strong convergence on one Brownian path, churn, temperature, Langevin steps."""

import math
from functools import lru_cache
from itertools import pairwise, product

import pytest
import torch

from samplers import GRIDS, SeededNoise
from samplers.ancestral import Ancestral
from samplers.ddim import DDIM
from samplers.euler_maruyama import EulerMaruyama
from samplers.heun import Heun
from samplers.langevin import AnnealedLangevin, Langevin
from samplers.noise.brownian import BrownianNoise
from samplers.reverse_diffusion import ReverseDiffusion
from samplers.reverse_sde import ReverseSDE
from sde import VESDE, VPSDE
from tests.oracles.affine import MEAN, STD, gaussian, moments, slope
from tests.oracles.exact import Gaussian, GaussianMixture
from tests.oracles.noises import clock, never, nothing, unit
from tests.oracles.processes import PROCESSES

SOLVERS = {
    "ancestral": Ancestral(), "ancestral-beta": Ancestral("beta"), "reverse_diffusion": ReverseDiffusion(),
    "euler_maruyama": EulerMaruyama(), "ddim-1": DDIM(1.0), "heun-churn": Heun(churn=1.0),
}  # fmt: skip
"""Samplers that solve the reverse SDE, step by step."""
STRONG = ("vp", "subvp", "ve", "vp-cosine")
MODELS = {
    "gaussian": lambda sde: gaussian(sde),
    "mixture": lambda sde: GaussianMixture(sde, torch.tensor([[-0.6], [0.6]], dtype=torch.float64), 0.5),
}
FINE, ROWS = 2048, 256


def walk(model, sampler, x, times, noise):
    """The loop, with a path's noise for each step."""
    carry = None
    for t, s in pairwise(times):
        x, carry = sampler.step(model, x, t, s, noise.between(t, s), carry)
    return x


class Path:
    """A Brownian path in the clock sigma^2 / alpha^2, drawn on a fine grid; the increments of coarser ones."""

    def __init__(self, sde, rows):
        self.sde, self.times = sde, GRIDS["log_snr"](sde, FINE)
        self.tau = clock(sde, self.times)
        generator = torch.Generator().manual_seed(1)
        z = torch.randn(FINE, rows, 1, dtype=torch.float64, generator=generator)
        steps = (self.tau[:-1] - self.tau[1:]).sqrt().view(-1, 1, 1) * z
        self.walk = torch.cat([z.new_zeros(1, rows, 1), steps.cumsum(0)])
        self.start = torch.randn(rows, 1, dtype=torch.float64, generator=generator) * sde.prior_std()

    def between(self, t, s):
        i, j = ((self.times - u).abs().argmin() for u in (t, s))
        return lambda x: (self.walk[j] - self.walk[i]) / (self.tau[i] - self.tau[j]).sqrt()


@lru_cache
def strong_problem(process, kind):
    """A model, a path and the reverse SDE's solution on it, by the exponential step for x / alpha in the clock tau."""
    sde = PROCESSES[process]
    model, path = MODELS[kind](sde), Path(sde, ROWS)
    y = path.start / sde.alpha(path.times[0])
    for i, t in enumerate(path.times[:-1]):
        keep = path.tau[i + 1] / path.tau[i]
        y = keep * y + (1 - keep) * model(y * sde.alpha(t), t) + keep.sqrt() * (path.walk[i + 1] - path.walk[i])
    return model, path, y * sde.alpha(path.times[-1])


# The mixture is the harder model, which the Gaussian does not add to beyond one case.
@pytest.mark.parametrize(
    ("process", "kind", "name"),
    [*product(STRONG, ["mixture"], SOLVERS), *product(["vp"], ["gaussian"], ["ancestral"])],
)
def test_strong_order(process, kind, name):
    """On one Brownian path, halved steps halve the distance to the reverse SDE's solution on that path."""
    model, path, exact = strong_problem(process, kind)
    errors = []
    for steps in (64, 256):
        end = walk(model, SOLVERS[name], path.start, path.times[:: FINE // steps], path)
        errors.append((end - exact).square().mean().sqrt().item())
    assert math.log2(errors[0] / errors[1]) / 2 > 0.85, errors
    assert errors[1] < 0.2 * exact.std().item()


@pytest.mark.parametrize("sampler", [ReverseDiffusion(), Heun(churn=1.0)], ids=["reverse_diffusion", "heun"])
def test_the_paths_of_seeds_converge(sampler):
    """The same with noise from seeds, in few steps: what halving them changes is halved."""
    sde, seeds = VPSDE(), range(3)
    model = Gaussian(sde, torch.full((99,), MEAN, dtype=torch.float64), STD)
    x = SeededNoise(seeds)(torch.empty(3, 99, dtype=torch.float64)) * sde.prior_std()
    ends = [walk(model, sampler, x, GRIDS["log_snr"](sde, n), BrownianNoise(seeds, sde)) for n in (32, 64, 128)]
    gaps = [(a - b).square().mean().sqrt().item() for a, b in pairwise(ends)]
    assert 1.6 < gaps[0] / gaps[1] < 2.6, gaps


def test_reverse_diffusion_of_ve():
    """Song et al. 2021, algorithm 2: x + (sigma_{i+1}^2 - sigma_i^2) score + sqrt(sigma_{i+1}^2 - sigma_i^2) z."""
    sde = VESDE()
    model = Gaussian(sde, torch.tensor([0.3], dtype=torch.float64), 0.8)
    t, s = torch.tensor([0.6, 0.55], dtype=torch.float64)
    before, after = (0.01 * 5000**u for u in (0.6, 0.55))
    x = torch.tensor([[1.7]], dtype=torch.float64)
    added = before**2 - after**2
    score = (0.3 - x) / (0.8**2 + before**2)
    torch.testing.assert_close(
        ReverseDiffusion().step(model, x, t, s, unit)[0], x + added * score + math.sqrt(added), rtol=1e-9, atol=1e-9
    )


def test_reverse_diffusion_of_vp():
    """Song et al. 2021, algorithm 3: (2 - sqrt(1 - beta)) x + beta score + sqrt(beta) z."""
    sde = VPSDE()
    alpha_bar = torch.tensor([0.5, 0.4], dtype=torch.float64)
    s, t = (sde.t_of_log_snr(torch.log(a / (1 - a))) for a in alpha_bar)
    beta = 1 - alpha_bar[1] / alpha_bar[0]
    model = Gaussian(sde, torch.tensor([0.3], dtype=torch.float64), 0.8)
    x = torch.tensor([[1.7]], dtype=torch.float64)
    score = (alpha_bar[1].sqrt() * 0.3 - x) / (alpha_bar[1] * 0.8**2 + 1 - alpha_bar[1])
    expected = (2 - (1 - beta).sqrt()) * x + beta * score
    for temperature in (0.0, 0.6, 1.0):
        torch.testing.assert_close(
            ReverseDiffusion(temperature).step(model, x, t, s, unit)[0], expected + temperature * beta.sqrt()
        )


def test_euler_maruyama_between_ode_and_sde():
    """f x - (1 + eta^2) / 2 g^2 score and eta g, for VE in its own notation."""
    sde = VESDE()
    model = Gaussian(sde, torch.tensor([0.3], dtype=torch.float64), 0.8)
    t, s = torch.tensor([0.6, 0.59], dtype=torch.float64)
    sigma2 = (0.01 * 5000**0.6) ** 2
    g2, x = 2 * math.log(5000) * sigma2, torch.tensor([[1.7]], dtype=torch.float64)
    score = (0.3 - x) / (0.8**2 + sigma2)
    for eta in (0.0, 0.5, 1.0, 1.5):
        expected = x + 0.01 * (1 + eta**2) / 2 * g2 * score + eta * math.sqrt(0.01 * g2)
        torch.testing.assert_close(EulerMaruyama(eta).step(model, x, t, s, unit)[0], expected)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.5])
def test_every_eta_has_the_same_marginals(eta, process):
    errors = []
    for steps in (64, 128):
        times = GRIDS["log_snr"](process, steps)
        mean, variance = moments(gaussian(process), EulerMaruyama(eta), times)
        exact = (process.alpha(times[-1]) * STD) ** 2 + process.sigma(times[-1]) ** 2
        errors.append(abs(mean - process.alpha(times[-1]).item() * MEAN) + abs(variance - exact.item()))
    assert slope(errors) > 0.65, errors


@pytest.mark.parametrize("sampler", [
    Ancestral(temperature=0.0), ReverseDiffusion(0.0), EulerMaruyama(temperature=0.0), EulerMaruyama(0.0), Heun(),
    Heun(churn=1.0, churn_min=1e9),
])  # fmt: skip
def test_deterministic_samplers_draw_nothing(sampler):
    model, times = gaussian(VPSDE()), GRIDS["log_snr"](VPSDE(), 4)
    sampler.step(model, torch.ones(1, 1, dtype=torch.float64), times[1], times[2], never)


@pytest.mark.parametrize("kind", [Ancestral, ReverseDiffusion, EulerMaruyama])
def test_temperature_is_a_factor_of_the_noise(kind, process):
    model, (t, s) = gaussian(process), GRIDS["log_snr"](process, 8)[3:5]
    x = torch.full((1, 1), 0.4, dtype=torch.float64)
    still, plain = (kind().step(model, x, t, s, z)[0] for z in (nothing, unit))
    torch.testing.assert_close(kind(temperature=0.3).step(model, x, t, s, unit)[0], still + 0.3 * (plain - still))
    torch.testing.assert_close(kind(temperature=0.0).step(model, x, t, s, never)[0], still)


@pytest.mark.parametrize(("kind", "options", "words"), [
    (Ancestral, {"temperature": -0.1}, "temperature = -0.1: needs a number of at least 0"),
    (ReverseDiffusion, {"temperature": math.nan}, "temperature = nan"),
    (EulerMaruyama, {"temperature": math.inf}, "temperature = inf"),
    (EulerMaruyama, {"eta": -1}, "eta = -1: needs a number of at least 0"),
    (Heun, {"churn": -1}, "churn = -1: needs a number of at least 0"),
    (Heun, {"noise_scale": -1}, "noise_scale = -1"),
    (Heun, {"churn_min": 2.0, "churn_max": 1.0}, "churn_min = 2.0 and churn_max = 1.0: needs"),
    (ReverseSDE, {"rtol": 0}, "rtol = 0 and atol = 0.01: need positive tolerances"),
    (ReverseSDE, {"max_nfe": 0}, "max_nfe = 0: needs an integer of at least 1"),
])  # fmt: skip
def test_bad_options(kind, options, words):
    with pytest.raises(ValueError, match=words):
        kind(**options)


def test_churn_in_its_own_notation():
    """Karras et al. 2022, algorithm 2, for VE, with 1 + gamma = (sigma / sigma')^churn, at most sqrt(2)."""
    sde = VESDE()
    model = Gaussian(sde, torch.tensor([0.3], dtype=torch.float64), 0.8)
    x = torch.tensor([[1.7]], dtype=torch.float64)

    def slope_of(x, sigma):
        return (x - (0.8**2 * x + sigma**2 * 0.3) / (0.8**2 + sigma**2)) / sigma

    for t, s, gain in ((0.6, 0.58, (5000**0.02) ** 0.7), (0.6, 0.3, math.sqrt(2))):
        sigma, after = (0.01 * 5000**u for u in (t, s))
        hat = gain * sigma
        x_hat = x + 1.01 * math.sqrt(hat**2 - sigma**2)
        first = slope_of(x_hat, hat)
        expected = x_hat + (after - hat) * (first + slope_of(x_hat + (after - hat) * first, after)) / 2
        ends = torch.tensor([t, s], dtype=torch.float64)
        out, _ = Heun(0.7, noise_scale=1.01).step(model, x, *ends, unit)
        torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)


def test_churn_keeps_the_law_and_the_order(process):
    errors = []
    for steps in (48, 96):
        times = GRIDS["log_snr"](process, steps)
        mean, variance = moments(gaussian(process), Heun(0.7), times)
        exact = (process.alpha(times[-1]) * STD) ** 2 + process.sigma(times[-1]) ** 2
        errors.append(abs(mean - process.alpha(times[-1]).item() * MEAN) + abs(variance - exact.item()))
    assert slope(errors) > 1.65, errors


def test_churn_within_its_range_alone():
    """Where sigma / alpha lies between churn_min and churn_max; never at t_max, where there is no room above."""
    sde = VESDE()
    model, times, x = gaussian(sde), GRIDS["log_snr"](sde, 20), torch.ones(1, 1, dtype=torch.float64)
    sampler, drawn = Heun(1.0, churn_min=0.1, churn_max=5.0), []
    for t, s in pairwise(times):
        count = len(drawn)
        sampler.step(model, x, t, s, lambda x: drawn.append(1) or torch.zeros_like(x))
        assert (len(drawn) > count) == bool(0.1 <= sde.sigma(t) <= 5.0)
    Heun(1.0).step(model, x, times[0], times[1], never)


def test_langevin_steps_know_neither_the_grid_nor_batch_mates(process):
    """A corrector's step is the same wherever the step came from, and alone or beside a sample of huge score."""
    model = GaussianMixture(process, torch.tensor([[-1.5, 0.0], [1.0, 1.0]], dtype=torch.float64), 0.3)
    times = GRIDS["log_snr"](process, 6, process.t_signal)
    s, x = times[3], torch.tensor([[0.3, -0.2], [40.0, -90.0], [0.0, 0.1]], dtype=torch.float64)
    for sampler in (Langevin(0.16, 2), AnnealedLangevin()):
        moved = []
        for t in times[:4]:
            # Annealed Langevin keeps x / alpha on the way.
            start = x * (process.alpha(t) / process.alpha(s)) if isinstance(sampler, AnnealedLangevin) else x
            moved.append(sampler.step(model, start, t, s, unit)[0])
            for i in range(3):
                torch.testing.assert_close(sampler.step(model, start[i : i + 1], t, s, unit)[0], moved[-1][i : i + 1])
        for other in moved[1:]:
            torch.testing.assert_close(other, moved[0])


def test_annealed_langevin_in_its_own_notation():
    """Song and Ermon 2019, algorithm 1: x + (alpha_i / 2) score + sqrt(alpha_i) z, at the level just reached."""
    sde = VESDE()
    model = Gaussian(sde, torch.tensor([0.3], dtype=torch.float64), 0.8)
    t, s = torch.tensor([0.6, 0.5], dtype=torch.float64)
    sigma2 = (0.01 * 5000**0.5) ** 2
    expected = x = torch.tensor([[1.7]], dtype=torch.float64)
    for _ in range(3):
        expected = expected + 0.3 * sigma2 * (0.3 - expected) / (0.8**2 + sigma2) + math.sqrt(0.6 * sigma2)
    torch.testing.assert_close(AnnealedLangevin().step(model, x, t, s, unit)[0], expected)
