"""Every process against automatic differentiation, its inverse, float32, and the marginals of its own SDE."""

import math

import numpy as np
import pytest
import torch

from sde import SDE, VESDE, VPSDE, SubVPSDE
from sde.process.base import ZERO_SIGNAL_CUT, derivative
from sde.process.coefficients import expand
from sde.process.elementwise import ELEMENTWISE
from tests.oracles.processes import Straight, interior


def test_drift_and_diffusion_follow_from_the_two_formulas(process):
    t = interior(process)
    torch.testing.assert_close(process.f(t), SDE.f(process, t), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(process.g2(t), SDE.g2(process, t), rtol=1e-8, atol=1e-12)


def test_rates_are_derivatives(process):
    """Of alpha and sigma, those of the open end as limits in either precision; with them f and g^2 follow."""
    t = interior(process)
    alpha, sigma = process.alpha(t), process.sigma(t)
    for rate, formula in ((process.alpha_rate, process.alpha), (process.sigma_rate, process.sigma)):
        torch.testing.assert_close(rate(t), derivative(formula, t), rtol=1e-8, atol=1e-12)
        end = torch.tensor([process.t_max, 0.999 * process.t_max], dtype=torch.float64)
        torch.testing.assert_close(rate(end.float()).double(), rate(end), rtol=1e-3, atol=1e-5)
        assert (rate(end)[0] - rate(end)[1]).abs() < 0.02 * rate(end).abs().max() + 0.01
    torch.testing.assert_close(process.alpha_rate(t), process.f(t) * alpha, rtol=1e-9, atol=1e-12)
    growth = process.f(t) + 0.5 * process.g2(t) / sigma**2
    torch.testing.assert_close(process.sigma_rate(t) / sigma, growth, rtol=1e-7, atol=1e-10)


def test_the_sde_has_the_marginals_of_the_formulas(process):
    """d log alpha = f dt, and d sigma^2 = (2 f sigma^2 + g^2) dt, by central differences."""
    t = interior(process)[5:-5]
    h = 1e-6 * t
    drift = (process.log_alpha(t + h) - process.log_alpha(t - h)) / (2 * h)
    torch.testing.assert_close(process.f(t), drift, rtol=1e-5, atol=1e-6)
    growth = (process.sigma(t + h) ** 2 - process.sigma(t - h) ** 2) / (2 * h)
    torch.testing.assert_close(2 * process.f(t) * process.sigma(t) ** 2 + process.g2(t), growth, rtol=1e-4, atol=1e-6)


def test_inverse_of_log_snr(process):
    t = interior(process)
    torch.testing.assert_close(process.t_of_log_snr(process.log_snr(t)), t, rtol=1e-7, atol=1e-12)


def test_levels_that_the_process_never_has_are_said(process):
    """Beyond either end, by either inverse; the ends themselves, as rounding leaves them, are times."""
    most, least = process.log_snr_ends
    times = torch.tensor([process.t_min, process.t_max], dtype=torch.float64)
    torch.testing.assert_close(process.log_snr(times), torch.tensor([most, least], dtype=torch.float64))
    ends = torch.tensor([most + 1e-9, least - 1e-9], dtype=torch.float64)
    torch.testing.assert_close(process.t_of_log_snr(ends), times, rtol=1e-7, atol=1e-9)
    assert process.t_of_log_snr(ends).tolist() == process.t_of_log_snr(ends).clamp(*times.tolist()).tolist()
    for wrong in (most + 0.1, least - 0.1, math.inf, -math.inf, math.nan):
        with pytest.raises(ValueError, match=r"^log_snr = .*: this process has .* at t_max to .* at t_min"):
            process.t_of_log_snr(torch.tensor([0.5 * (most + least), wrong], dtype=torch.float64))
    for wrong in (0.9 * process.noise_level(times[0]), 1.1 * process.noise_level(times[1])):
        with pytest.raises(ValueError, match="noise level"):
            process.t_of_noise_level(wrong)


def test_times_are_numbers_lists_or_arrays(process):
    """In float64, of every method; and noised data of arrays."""
    t = 0.5 * (process.t_min + process.t_max)
    for name in ELEMENTWISE:
        value = {"t_of_log_snr": 0.0, "t_of_noise_level": 1.0}.get(name, t)
        expected = getattr(process, name)(torch.tensor([value], dtype=torch.float64))
        for given in ([value], np.array([value], dtype=">f8"), np.array([value, 0.0])[:1]):
            torch.testing.assert_close(getattr(process, name)(given), expected, rtol=0, atol=0)
        torch.testing.assert_close(getattr(process, name)(value), expected[0], rtol=1e-12, atol=0)
    x, z = np.ones((3, 2)), np.zeros((3, 2))
    noised = process.perturb(x, torch.tensor(t, dtype=torch.float64), z)
    torch.testing.assert_close(noised, process.alpha(t) * torch.ones(3, 2), check_dtype=False)


def test_log_snr_falls_over_the_whole_range(process):
    log_snr = process.log_snr(torch.linspace(process.t_min, process.t_max, 1000, dtype=torch.float64))
    assert (log_snr.diff() < 0).all()
    assert log_snr.isfinite().all()


@pytest.mark.parametrize("name", ["alpha", "sigma", "g2"])
def test_float32_near_the_data_end(process, name):
    """1 - alpha^2 would lose 1 to 2 % of sigma at t = 1e-5."""
    t = torch.logspace(-5, math.log10(process.t_max), 40, dtype=torch.float64).clamp(max=process.t_max).float()
    exact, single = getattr(process, name)(t.double()), getattr(process, name)(t)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, rtol=1e-5, atol=0)


def test_process_of_the_literature():
    """Values written out from the papers' formulas at t = 0.5."""
    half = torch.tensor(0.5, dtype=torch.float64)
    integral = 0.1 * 0.5 + 0.5 * 19.9 * 0.25
    assert VPSDE().alpha(half).item() == pytest.approx(math.exp(-integral / 2))
    assert VPSDE().sigma(half).item() == pytest.approx(math.sqrt(1 - math.exp(-integral)))
    assert SubVPSDE().sigma(half).item() == pytest.approx(1 - math.exp(-integral))
    assert VPSDE().g2(half).item() == pytest.approx(0.1 + 19.9 / 2)
    assert VESDE().sigma(half).item() == pytest.approx(0.01 * math.sqrt(5000))
    angle = (0.5 + 0.008) / 1.008 * math.pi / 2
    assert VPSDE(schedule="cosine").alpha(half).item() == pytest.approx(
        math.cos(angle) / math.cos(0.008 / 1.008 * math.pi / 2)
    )
    root = (math.sqrt(0.1) + math.sqrt(20)) / 2
    assert VPSDE(schedule="scaled_linear").g2(half).item() == pytest.approx(root**2)


def test_prior(process, generator):
    x = torch.randn(5, 3, 2, generator=generator, dtype=torch.float64)
    normal = torch.distributions.Normal(0, process.prior_std())
    torch.testing.assert_close(process.prior_log_prob(x), normal.log_prob(x).sum((1, 2)))


def test_zero_signal_end_is_cut():
    sde = Straight()
    end = torch.tensor(sde.t_max, dtype=torch.float64)
    assert sde.t_max < 1
    assert sde.log_snr(end).item() == pytest.approx(ZERO_SIGNAL_CUT, rel=1e-9)


def test_a_plain_subclass_is_enough():
    class Mine(SDE):
        def log_alpha(self, t):
            return -t

        def sigma(self, t):
            return t

    t = torch.tensor([0.2, 0.7], dtype=torch.float64)
    torch.testing.assert_close(Mine().g2(t), 2 * t + 2 * t**2)
    torch.testing.assert_close(Mine().t_of_log_snr(Mine().log_snr(t)), t, rtol=1e-9, atol=0)


def test_times_of_a_batch_never_broadcast_over_coordinates(generator):
    x = torch.randn(5, 2, generator=generator)
    assert expand(torch.ones(5), x).shape == (5, 1)
    for shape in ((2,), (5, 1), (1,)):
        with pytest.raises(ValueError, match="one time per sample"):
            VPSDE().perturb(x, torch.full(shape, 0.5), x)


@pytest.mark.parametrize(("build", "words"), [
    (lambda: VPSDE(beta_min=3.0, beta_max=1.0), "beta_min <= beta_max"),
    (lambda: VPSDE(schedule="sine"), "linear, scaled_linear, cosine"),
    (lambda: VPSDE(schedule="cosine", beta_max=5.0), "takes no beta"),
    (lambda: VESDE(sigma_min=0.0), "sigma_min"),
    (lambda: SubVPSDE(t_min=1.0), "t_min < t_max"),
])  # fmt: skip
def test_refusals(build, words):
    with pytest.raises(ValueError, match=words):
        build()
