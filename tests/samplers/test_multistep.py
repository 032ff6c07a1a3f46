"""Multistep methods: their weights, and independent formulas in their papers' notation."""

import inspect
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

import samplers
from samplers import (
    DDIM,
    Ancestral,
    DPMSolverPP,
    ExponentialAdams,
    SASolver,
    UniPC,
    sample,
)
from samplers.grid import make_grid
from samplers.langevin import AnnealedLangevin, Langevin
from samplers.numerics.exponential import PREDICTIONS, norm
from samplers.numerics.weights import divided_differences, exponential_weights
from samplers.planning.fitted import LinearMultistep
from samplers.repaint import RePaint
from sde import VPSDE
from tests.oracles.exact import GaussianMixture

NODES = (0.0, -0.3, -0.9, -1.2)
MODES = torch.tensor([[-1.5, 0.0], [1.0, 1.0], [0.5, -1.0]], dtype=torch.float64)


def nothing(x):
    return torch.zeros_like(x)


def unit(x):
    return torch.ones_like(x)


@pytest.mark.parametrize("rate", [-1.0, 0.0, 1.0, 2.0])
@pytest.mark.parametrize("end", [1e-4, 0.5, 6.0])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_weights_integrate_polynomials(count, end, rate):
    nodes = NODES[:count]
    weights = exponential_weights(nodes, 0.0, end, rate)
    for degree in range(count):
        exact = quad(lambda u, d=degree: math.exp(rate * (u - end)) * u**d, 0, end, epsabs=0, epsrel=1e-13)[0]
        found = sum(w * node**degree for w, node in zip(weights, nodes, strict=True))
        assert found == pytest.approx(exact, rel=1e-9, abs=1e-13)


def test_classical_weights():
    """Adams-Bashforth and Adams-Moulton of the textbooks (Hairer, Norsett and Wanner 1993, section III.1)."""
    assert exponential_weights((0.0, -1.0, -2.0), 0.0, 1.0, 0.0) == pytest.approx((23 / 12, -16 / 12, 5 / 12))
    assert exponential_weights((1.0, 0.0, -1.0), 0.0, 1.0, 0.0) == pytest.approx((5 / 12, 8 / 12, -1 / 12))


def test_divided_differences():
    nodes = np.array(NODES)
    table = divided_differences(NODES)
    assert table @ nodes**2 == pytest.approx([0, -0.3, 1, 0], abs=1e-12)
    assert table @ nodes**3 == pytest.approx([0, 0.09, -1.2, 1], abs=1e-12)


@pytest.fixture
def problem():
    """A model, a state, and times with h and lambda in the papers' sense."""
    model = GaussianMixture(VPSDE(), MODES, 0.2)
    times = make_grid(model.sde, "karras", 6)[2:6]
    return model, torch.tensor([[1.7, -0.4], [0.2, 0.9]], dtype=torch.float64), times


def parts(model, times):
    return [(model.sde.alpha(t), model.sde.sigma(t), model.sde.log_snr(t) / 2) for t in times]


def test_dpmpp_2m_in_its_own_notation(problem):
    """Lu et al. 2022b, algorithm 2: D_i = (1 + 1 / (2 r)) x(i-1) - x(i-2) / (2 r)."""
    model, x, times = problem
    (_, sigma0, lambda0), (alpha1, sigma1, lambda1), (alpha2, sigma2, lambda2) = parts(model, times[:3])
    first = model(x, times[0])
    x1 = sigma1 / sigma0 * x - alpha1 * (torch.exp(-(lambda1 - lambda0)) - 1) * first
    r = (lambda1 - lambda0) / (lambda2 - lambda1)
    direction = (1 + 1 / (2 * r)) * model(x1, times[1]) - 1 / (2 * r) * first
    expected = sigma2 / sigma1 * x1 - alpha2 * (torch.exp(-(lambda2 - lambda1)) - 1) * direction
    torch.testing.assert_close(sample(model, DPMSolverPP(2), x, times[:3], denoise=False), expected)


def test_dpmpp_singlestep_in_its_own_notation(problem):
    """Lu et al. 2022b, algorithm 1 with r = 1/2; the third order as in Lu et al. 2022a, algorithm 2, on D."""
    model, x, (t, s, *_) = problem
    sde = model.sde
    (_, sigma_t, lambda_t), (alpha_s, sigma_s, lambda_s) = parts(model, (t, s))
    h = lambda_s - lambda_t

    def at(r):
        u = sde.t_of_log_snr(2 * (lambda_t + r * h))
        return u, sde.alpha(u), sde.sigma(u)

    d0 = model(x, t)
    u, alpha_u, sigma_u = at(0.5)
    middle = sigma_u / sigma_t * x - alpha_u * torch.expm1(-h / 2) * d0
    expected = sigma_s / sigma_t * x - alpha_s * torch.expm1(-h) * model(middle, u)
    torch.testing.assert_close(DPMSolverPP(2, True).step(model, x, t, s, nothing)[0], expected)

    (u1, alpha1, sigma1), (u2, alpha2, sigma2) = at(1 / 3), at(2 / 3)
    d1 = model(sigma1 / sigma_t * x - alpha1 * torch.expm1(-h / 3) * d0, u1) - d0
    phi = torch.expm1(-2 / 3 * h) / (2 / 3 * h) + 1
    x2 = sigma2 / sigma_t * x - alpha2 * torch.expm1(-2 / 3 * h) * d0 + alpha2 * 2 * phi * d1
    d2 = model(x2, u2) - d0
    expected = sigma_s / sigma_t * x - alpha_s * torch.expm1(-h) * d0 + alpha_s * 1.5 * (torch.expm1(-h) / h + 1) * d2
    torch.testing.assert_close(DPMSolverPP(3, True).step(model, x, t, s, nothing)[0], expected)


@pytest.mark.parametrize("prediction", ["noise", "denoised"])
def test_order_one_is_ddim(problem, prediction):
    model, x, times = problem
    expected = sample(model, DDIM(), x, times, denoise=False)
    torch.testing.assert_close(sample(model, ExponentialAdams(1, prediction), x, times, denoise=False), expected)


def test_stochastic_with_one_point_is_ancestral(problem):
    """SDE-DPM-Solver++ of order 1 is the posterior q(x_s | x_t, D) of DDPM (Lu et al. 2022b, section 5)."""
    model, x, (t, s, *_) = problem
    for noise in (nothing, unit):
        expected = Ancestral().step(model, x, t, s, noise)[0]
        torch.testing.assert_close(SASolver(1).step(model, x, t, s, noise)[0], expected)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_seeds_in_its_own_notation(problem, eta):
    """Gonzalez et al. 2023, SEEDS-1: x alpha_s / alpha_t - 2 sigma_s (e^h - 1) n + sigma_s sqrt(e^2h - 1) z."""
    model, x, (t, s, *_) = problem
    (alpha_t, _, lambda_t), (alpha_s, sigma_s, lambda_s) = parts(model, (t, s))
    h = lambda_s - lambda_t
    mean = alpha_s / alpha_t * x - (1 + eta**2) * sigma_s * torch.expm1(h) * model.noise(x, t)
    expected = mean + eta * sigma_s * torch.expm1(2 * h).sqrt()
    torch.testing.assert_close(SASolver(1, "noise", eta).step(model, x, t, s, unit)[0], expected)


@pytest.mark.parametrize("prediction", ["noise", "denoised"])
@pytest.mark.parametrize("points", [1, 2, 3])
def test_stochastic_without_noise_is_the_flow(problem, points, prediction):
    model, x, times = problem
    expected = sample(model, ExponentialAdams(points, prediction), x, times, denoise=False)
    found = sample(model, SASolver(points, prediction, 0.0), x, times, noise=None, denoise=False)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_unipc_by_hand(problem, prediction):
    """Two steps: predict, correct with the new output among the points, predict from the corrected state."""
    model, x, times = problem
    formula, (a, b, c) = PREDICTIONS[prediction], (model.sde.level(t) for t in times[:3])
    first = formula.of(x, model(x, times[0]), a)
    predicted = formula.advance(x, a, b, [a], [first])
    second = formula.of(predicted, model(predicted, times[1]), b)
    corrected = formula.advance(x, a, b, [b, a], [second, first])
    expected = formula.advance(corrected, b, c, [b, a], [second, first])
    torch.testing.assert_close(sample(model, UniPC(2, prediction), x, times[:3], denoise=False), expected)


def test_predictions_are_of_the_model(problem):
    model, x, (t, *_) = problem
    at, denoised = model.sde.level(t), model(x, t)
    torch.testing.assert_close(PREDICTIONS["noise"].of(x, denoised, at), model.noise(x, t))
    assert PREDICTIONS["denoised"].of(x, denoised, at) is denoised
    v = at.alpha * model.noise(x, t) - at.sigma * denoised
    torch.testing.assert_close(PREDICTIONS["v"].of(x, denoised, at), v / norm(at))


def test_linear_multistep_holds_the_exponential_methods(problem):
    model, x, times = problem
    ratios = (model.sde.log_snr(times) / 2).tolist()
    weights = []
    for i, end in enumerate(ratios[1:]):
        nodes = tuple(ratios[max(0, i - 2) : i + 1][::-1])
        weights.append(tuple(-math.exp(-end) * w for w in exponential_weights(nodes, ratios[i], end, -1.0)))
    sampler = LinearMultistep(tuple(times.tolist()), tuple(weights))
    expected = sample(model, ExponentialAdams(3, "noise"), x, times, denoise=False)
    torch.testing.assert_close(sample(model, sampler, x, sampler.grid, denoise=False), expected)
    with pytest.raises(ValueError, match="run it from the first to the last"):
        sample(model, sampler, x, times[1:])


@pytest.mark.parametrize(("make", "words"), [
    (lambda: ExponentialAdams(5), "solver_order = 5: needs an integer from 1 to 4"),
    (lambda: ExponentialAdams(2, "edm"), "prediction = 'edm'"), (lambda: UniPC(0), "solver_order = 0"),
    (lambda: UniPC(variant="bh3"), "variant = 'bh3'"),
    (lambda: DPMSolverPP(4), "solver_order = 4"), (lambda: SASolver(2, "v"), "denoised, noise"),
    (lambda: SASolver(eta=-1), "eta = -1"),
])  # fmt: skip
def test_bad_options(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_renamed_samplers():
    with pytest.raises(ImportError, match=r"samplers.DPMpp has a new name: take samplers.DPMSolverPP"):
        exec("from samplers import DPMpp")
    with pytest.raises(AttributeError, match="no attribute 'Ddim'"):
        _ = samplers.Ddim


@pytest.mark.parametrize(("make", "old", "new"), [
    (UniPC, "points", "solver_order"), (SASolver, "points", "solver_order"), (DPMSolverPP, "order", "solver_order"),
    (ExponentialAdams, "order", "solver_order"), (Langevin, "corrections", "corrector_steps"),
    (AnnealedLangevin, "corrections", "corrector_steps"), (RePaint, "resamplings", "repaint_steps"),
])  # fmt: skip
def test_renamed_arguments(make, old, new):
    """An old name is refused by a sentence, what was never there as Python does, and the new one stands in the
    signature."""
    with pytest.raises(TypeError, match=f"^{make.__name__}: {old} has a new name: take {new}$"):
        make(**{old: 2})
    with pytest.raises(TypeError, match="unexpected keyword argument 'nothing'"):
        make(nothing=2)
    assert getattr(make(**{new: 2}), new) == 2
    assert new in inspect.signature(make).parameters


@pytest.mark.parametrize(("sampler", "order"), [
    (ExponentialAdams(2), 2), (DPMSolverPP(3), 3), (UniPC(2), 3), (SASolver(3), 1), (DDIM(), 1),
])  # fmt: skip
def test_the_order_is_what_the_method_claims(sampler, order):
    assert sampler.order == order
