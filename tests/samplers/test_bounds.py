"""Variational bounds against closed forms and the exact densities of Gaussians and mixtures."""

import itertools
import math

import pytest
import torch

from samplers import discrete_bound, log_likelihood, variational_bound
from samplers.checks import NonFiniteError
from samplers.grid import make_grid
from sde import VPSDE, Transform
from tests.oracles.exact import Gaussian, GaussianMixture

MEANS = torch.tensor([[-1.5, 0.0], [1.0, 1.0], [0.5, -1.0]], dtype=torch.float64)
MEAN, STD, DIM = 0.3, 0.5, 8


def gaussian(process, **options):
    return Gaussian(process, torch.full((DIM,), MEAN, dtype=torch.float64), STD, **options)


def snr_at(process, times):
    return process.log_snr(torch.as_tensor(times, dtype=torch.float64)).exp()


def prior_term(process, x, end=None):
    """-KL(N(alpha x, sigma^2 I) || N(0, prior_std^2 I)) by torch's own."""
    end = torch.tensor(process.t_max if end is None else end, dtype=torch.float64)
    posterior = torch.distributions.Normal(process.alpha(end) * x, process.sigma(end))
    prior = torch.distributions.Normal(torch.zeros_like(x), process.prior_std())
    return -torch.distributions.kl_divergence(posterior, prior).sum(1)


def decoder_term(process, t):
    """The mean log N(x; x + s z, s^2) over z, by torch's own entropy."""
    t = torch.tensor(t, dtype=torch.float64)
    return -DIM * torch.distributions.Normal(0.0, process.sigma(t) / process.alpha(t)).entropy()


def diffusion_term(process, x):
    """With r = STD^2 snr, snr E|x - D|^2 = snr |x - m|^2 / (1 + r)^2 + DIM (r / (1 + r))^2, integrated in log snr."""
    r = STD**2 * snr_at(process, [process.t_min, process.t_max])
    away = (x - MEAN).square().sum(1) / STD**2
    integrals = away[:, None] * r / (1 + r) + DIM * (torch.log1p(r) + 1 / (1 + r))
    return -0.5 * (integrals[:, 0] - integrals[:, 1])


def discrete_term(process, x, times):
    """The KL of each step between the posteriors of x and of D, written out from their moments, for E over z_t."""
    total = 0
    for t, s in itertools.pairwise(times):
        alpha, sigma, alpha_s, sigma_s = process.alpha(t), process.sigma(t), process.alpha(s), process.sigma(s)
        ratio = alpha / alpha_s
        noise = sigma**2 - ratio**2 * sigma_s**2
        variance, per_x = sigma_s**2 * noise / sigma**2, alpha_s * noise / sigma**2
        # D = m + gain (z_t - alpha m)
        gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
        error = (1 - gain * alpha) ** 2 * (x - MEAN).square().sum(1) + DIM * (gain * sigma) ** 2
        total = total - per_x**2 * error / (2 * variance)
    return total


def check_errors(found, exact):
    """The stated errors cover what is seen: (B,) samples, errors of independent draws."""
    away = (found.diffusion - exact) / found.stderr
    assert away.abs().max() < 4.5
    assert abs(away.mean().item()) < 4 / len(away) ** 0.5
    assert 0.75 < away.square().mean().sqrt() < 1.25


def test_continuous_bound_of_a_gaussian(process, generator):
    model = gaussian(process)
    x = model.draw(128, generator)
    found = variational_bound(model, x, draws=64)
    check_errors(found, diffusion_term(process, x))
    torch.testing.assert_close(found.prior, prior_term(process, x))
    torch.testing.assert_close(found.reconstruction, decoder_term(process, process.t_min).expand(128))
    torch.testing.assert_close(found.nats, found.prior + found.diffusion + found.reconstruction)
    assert (found.nfe == 64).all()


def test_discrete_bound_of_a_gaussian(process, generator):
    model = gaussian(process)
    x = model.draw(128, generator)
    times = make_grid(process, "log_snr", 12)
    found = discrete_bound(model, x, times, draws=64)
    check_errors(found, discrete_term(process, x, times))
    torch.testing.assert_close(found.prior, prior_term(process, x))
    torch.testing.assert_close(found.reconstruction, decoder_term(process, process.t_min).expand(128))


def test_a_grid_may_start_and_end_inside(generator):
    process = VPSDE()
    model = gaussian(process)
    x = model.draw(64, generator)
    times = torch.tensor([0.4, 0.2, 0.05], dtype=torch.float64)
    found = discrete_bound(model, x, times, draws=64)
    torch.testing.assert_close(found.prior, prior_term(process, x, 0.4))
    torch.testing.assert_close(found.reconstruction, decoder_term(process, 0.05).expand(64))
    check_errors(found, discrete_term(process, x, times))


def test_order_of_the_values(process, generator):
    """Exact log p(x) >= flow at t_min, on average, >= continuous bound >= discrete bounds, rising with the steps."""
    model = GaussianMixture(process, MEANS, 0.3)
    x = model.draw(512, generator)
    continuous = variational_bound(model, x, draws=32).nats
    discrete = [
        discrete_bound(model, x, make_grid(process, "log_snr", steps), draws=32).nats for steps in (4, 16, 64, 512)
    ]
    density = model.log_prob(x, torch.tensor(process.t_min, dtype=torch.float64))
    flow = log_likelihood(model, x[:64], rtol=1e-5, atol=1e-5).nats

    def above(a, b):
        """By how many standard errors the mean of a lies above that of b."""
        return ((a - b).mean() / ((a - b).std() / len(a) ** 0.5)).item()

    assert above(flow, continuous[:64]) > -2
    assert above(density, continuous) > -2
    assert abs((density - continuous).mean().item()) < 0.15 + 4 * (density - continuous).std() / len(x) ** 0.5
    # The same seed takes the same noise for all, whose part of the differences cancels.
    for coarse, fine in itertools.pairwise(discrete):
        assert above(fine, coarse) > 2
    assert abs(above(continuous, discrete[-1])) < 4 or (continuous - discrete[-1]).mean() > 0


def test_steps_tend_to_the_integral(process, generator):
    """The closed forms, without draws: doubling fine steps halves what is missing."""
    x = gaussian(process).draw(4, generator)
    missing = [
        diffusion_term(process, x) - discrete_term(process, x, make_grid(process, "log_snr", n)) for n in (400, 800)
    ]
    assert (missing[1] > 0).all()
    torch.testing.assert_close(missing[0] / missing[1], torch.full_like(missing[0], 2.0), rtol=0.05, atol=0)


def test_steps_by_their_number(generator):
    """As many equal steps in log snr; for quantized data they end where the integers are read off."""
    model = GaussianMixture(VPSDE(), MEANS, 0.3)
    x = model.draw(3, generator)
    found = discrete_bound(model, x, 10, draws=4).nats
    torch.testing.assert_close(found, discrete_bound(model, x, make_grid(model.sde, "log_snr", 10), draws=4).nats)
    quantized = GaussianMixture(VPSDE(), MEANS, 0.3, transform=Transform.of_levels(4))
    k = torch.tensor([[0.0, 3.0], [1.0, 2.0]], dtype=torch.float64)
    fine, integral = discrete_bound(quantized, k, 2000, draws=16), variational_bound(quantized, k, draws=16)
    torch.testing.assert_close(fine.reconstruction, integral.reconstruction)
    torch.testing.assert_close(fine.nats, integral.nats, rtol=0.02, atol=0.02)


def test_affine_rescaling_shifts_by_the_log_determinant(generator):
    moved = Transform((3.0, -1.0), (10.0, 0.5))
    plain = GaussianMixture(VPSDE(), MEANS, 0.3)
    scaled = GaussianMixture(VPSDE(), MEANS, 0.3, transform=moved)
    x = plain.draw(8, generator)
    times = make_grid(plain.sde, "log_snr", 10)
    for bound in (variational_bound, lambda m, v, **o: discrete_bound(m, v, times, **o)):
        a, b = bound(scaled, moved.decode(x), draws=4), bound(plain, x, draws=4)
        torch.testing.assert_close(a.nats - b.nats, torch.full((8,), -math.log(10 * 0.5), dtype=torch.float64))
        torch.testing.assert_close(a.stderr, b.stderr)


def test_batch_mates_change_nothing(generator):
    model = GaussianMixture(VPSDE(), MEANS, 0.3)
    x = model.draw(6, generator)
    times = make_grid(model.sde, "log_snr", 10)
    for bound in (variational_bound, lambda m, v, **o: discrete_bound(m, v, times, **o)):
        whole = bound(model, torch.cat([x[:3], 40 * x[3:]]), draws=4).nats
        torch.testing.assert_close(bound(model, x[:3], draws=4).nats, whole[:3], rtol=0, atol=1e-9)
        parts = [bound(model, x[i : i + 2], draws=4, first=i).nats for i in (0, 2, 4)]
        torch.testing.assert_close(torch.cat(parts), bound(model, x, draws=4).nats, rtol=0, atol=1e-9)
        assert not torch.equal(bound(model, x, draws=4, seed=1).nats, bound(model, x, draws=4).nats)


def test_refusals(generator):
    model = GaussianMixture(VPSDE(), MEANS, 0.3)
    x = model.draw(3, generator)
    with pytest.raises(ValueError, match="decoder = 'discretized': the model's transform declares continuous data"):
        variational_bound(model, x, decoder="discretized")
    with pytest.raises(ValueError, match="decoder = 'cells': needs one of gaussian, discretized"):
        variational_bound(model, x, decoder="cells")
    with pytest.raises(ValueError, match="draws = 0"):
        variational_bound(model, x, draws=0)
    with pytest.raises(ValueError, match="they must stay within"):
        variational_bound(model, x, start=1e-5)
    with pytest.raises(ValueError, match="strictly decreasing"):
        discrete_bound(model, x, torch.tensor([0.1, 1.0]))
    quantized = GaussianMixture(VPSDE(), MEANS, 0.3, transform=Transform.of_levels(4))
    with pytest.raises(ValueError, match=r"row 1 of x leaves \[0, 4\)"):
        variational_bound(quantized, torch.tensor([[0.0, 3.0], [1.0, 4.0]]))
    assert variational_bound(model, x, draws=1).stderr.isinf().all()

    class Broken(GaussianMixture):
        def forward(self, x, t):
            return torch.where(torch.arange(len(x))[:, None] == 1, math.nan, super().forward(x, t))

    with pytest.raises(NonFiniteError, match="sample 11 got a posterior mean that is not finite"):
        variational_bound(Broken(VPSDE(), MEANS, 0.3), x, draws=2, first=10)
