"""Log-densities against exact mixtures."""

import math

import pytest
import torch

from samplers import log_likelihood
from samplers.numerics.runge_kutta import integrate
from sde import VPSDE, Transform
from tests.oracles.exact import GaussianMixture
from tests.oracles.processes import PROCESSES

MEANS = torch.tensor([[-1.5, 0.0], [1.0, 1.0], [0.5, -1.0]], dtype=torch.float64)


def exact(model, x):
    z = x if model.transform is None else model.transform.encode(x)
    return model.log_prob(z, torch.tensor(model.sde.t_min, dtype=torch.float64)) + model.transform.log_det(x.shape[1:])


def test_exact_trace(process, generator):
    model = GaussianMixture(process, MEANS, 0.3)
    x = model.draw(32, generator)
    found = log_likelihood(model, x, rtol=1e-6, atol=1e-6)
    # The prior N(0, sigma^2) is not the exact law at t_max: that much differs from the exact density.
    t_max = torch.full((32,), process.t_max, dtype=torch.float64)
    mismatch = process.prior_log_prob(found.latent) - model.log_prob(found.latent, t_max)
    error = (found.nats - mismatch - exact(model, x)).square().mean().sqrt() / 2
    assert error < 1e-4
    assert (found.stderr == 0).all()
    assert found.nfe.max() <= 400


@pytest.mark.parametrize(
    ("process", "dim"), [*((name, 2) for name in PROCESSES), ("vp", 16), ("straight", 64)], indirect=["process"]
)
def test_centred_mixtures_need_no_correction(process, generator, dim):
    """The prior is that of data with zero mean, as the transform leaves them: nothing else stands between."""
    means = 0.6 * torch.randn(6, dim, generator=generator, dtype=torch.float64)
    model = GaussianMixture(process, means - means.mean(0), 0.25)
    x = model.draw(8, generator)
    found = log_likelihood(model, x, rtol=1e-6, atol=1e-6)
    assert (found.nats - exact(model, x)).square().mean().sqrt() / dim < 1e-3
    assert found.nfe.max() <= 400


def test_density_integrates_to_one():
    model = GaussianMixture(VPSDE(), torch.tensor([[-1.0], [0.5]], dtype=torch.float64), 0.3)
    x = torch.linspace(-4, 4, 401, dtype=torch.float64)[:, None]
    density = log_likelihood(model, x, rtol=1e-6, atol=1e-6).nats.exp()
    assert torch.trapezoid(density, x[:, 0]).item() == pytest.approx(1, abs=1e-3)


def test_density_in_the_plane_integrates_to_one():
    model = GaussianMixture(VPSDE(), torch.tensor([[-0.7, 0.0], [0.5, 0.6]], dtype=torch.float64), 0.3)
    line = torch.linspace(-3, 3, 61, dtype=torch.float64)
    x = torch.cartesian_prod(line, line)
    density = log_likelihood(model, x, rtol=1e-5, atol=1e-5).nats.exp().view(61, 61)
    assert torch.trapezoid(torch.trapezoid(density, line), line).item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("dim", [2, 16])
def test_sixteen_probes_know_their_error(generator, dim):
    """Of 512 items, at least 95 % within three of their own standard errors."""
    means = 0.6 * torch.randn(6, dim, generator=generator, dtype=torch.float64)
    model = GaussianMixture(VPSDE(), means - means.mean(0), 0.25)
    x = model.draw(512, generator)
    probed = log_likelihood(model, x, rtol=1e-3, atol=1e-3, probes=16)
    away = (probed.nats - log_likelihood(model, x, rtol=1e-3, atol=1e-3).nats).abs() / probed.stderr
    assert (away < 3).double().mean() >= 0.95


def test_probes_agree_within_their_errors(generator):
    model = GaussianMixture(VPSDE(), torch.randn(4, 16, generator=generator, dtype=torch.float64), 0.3)
    x = model.draw(64, generator)
    full = log_likelihood(model, x, rtol=1e-5, atol=1e-5)
    probed = log_likelihood(model, x, rtol=1e-5, atol=1e-5, probes=16)
    away = (probed.nats - full.nats).abs() / probed.stderr
    assert (away < 3).float().mean() >= 0.95
    assert 0.7 < away.square().mean().sqrt() < 1.4
    assert probed.stderr.mean() > 1e-3
    parts = [log_likelihood(model, x[i : i + 32], rtol=1e-5, atol=1e-5, probes=16, first=i).nats for i in (0, 32)]
    torch.testing.assert_close(torch.cat(parts), probed.nats, rtol=0, atol=1e-9)
    again = log_likelihood(model, x, rtol=1e-5, atol=1e-5, probes=16)
    assert torch.equal(again.nats, probed.nats)
    assert log_likelihood(model, x[:2], probes=1).stderr.isinf().all()


def test_affine_rescaling_shifts_by_the_log_determinant(generator):
    moved = Transform((3.0, -1.0), (10.0, 0.5))
    plain = GaussianMixture(VPSDE(), MEANS, 0.3, transform=Transform())
    scaled = GaussianMixture(VPSDE(), MEANS, 0.3, transform=moved)
    x = plain.draw(8, generator)
    difference = log_likelihood(scaled, moved.decode(x)).nats - log_likelihood(plain, x).nats
    torch.testing.assert_close(difference, torch.full((8,), -math.log(10 * 0.5), dtype=torch.float64))


def test_batch_mates_change_nothing(generator):
    model = GaussianMixture(VPSDE(), MEANS, 0.3)
    x = model.draw(6, generator)
    far = torch.cat([x[:3], 40 * x[3:]])
    for probes in (None, 4):
        alone = log_likelihood(model, x[:3], probes=probes)
        beside = log_likelihood(model, far, probes=probes)
        torch.testing.assert_close(beside.nats[:3], alone.nats, rtol=0, atol=1e-9)
        assert torch.equal(beside.nfe[:3], alone.nfe)


def test_calls_are_counted(generator):
    class Counting(GaussianMixture):
        rows_seen = 0

        def forward(self, x, t):
            self.rows_seen += len(x)
            return super().forward(x, t)

    model = Counting(VPSDE(), MEANS, 0.3)
    found = log_likelihood(model, model.draw(5, generator))
    assert found.nfe.sum().item() == model.rows_seen


def test_integrator_against_an_exact_solution():
    """dx/dt = -k x with a rate for each sample, its own steps, backwards too; errors named."""
    rates = torch.tensor([[0.1], [1.0], [4.0]], dtype=torch.float64)

    def slope(index, t, state):
        return (-rates[index] * state[0],)

    start = torch.ones(3, 1, dtype=torch.float64)
    solution = integrate(slope, (start,), 0.0, 2.0, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(solution.state[0], (-2 * rates).exp(), rtol=1e-6, atol=1e-9)
    assert solution.evaluations[0] < solution.evaluations[2]
    back = integrate(slope, solution.state, 2.0, 0.0, rtol=1e-8, atol=1e-14)
    torch.testing.assert_close(back.state[0], start, rtol=1e-4, atol=0)
    with pytest.raises(ArithmeticError, match=r"sample \d took \d+ calls .* raise max_nfe = 20"):
        integrate(slope, (start,), 0.0, 2.0, rtol=1e-10, atol=1e-12, max_nfe=20)
    with pytest.raises(FloatingPointError, match="sample 1 became non-finite"):
        integrate(lambda i, t, s: (torch.where(i[:, None] == 1, math.nan, s[0]),), (start,), 0.0, 1.0)
    with pytest.raises(ValueError, match="positive tolerances"):
        integrate(slope, (start,), 0.0, 1.0, rtol=0.0)


def test_order_of_the_integrator():
    """With all steps accepted at one size, the error falls with the fifth power of the size."""

    def slope(index, t, state):
        return (t[:, None].cos() * state[0],)

    errors = []
    for size in (0.2, 0.1):
        state, h = (torch.ones(1, 1, dtype=torch.float64),), torch.tensor([size], dtype=torch.float64)
        for i in range(round(2 / size)):
            state = integrate(slope, state, i * size, (i + 1) * size, rtol=1.0, atol=1.0, first_step=h).state
        errors.append(abs(state[0].item() - math.exp(math.sin(2.0))))
    assert math.log2(errors[0] / errors[1]) > 4.65


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_products_in_any_portions_are_the_same(generator, at_once):
    model = GaussianMixture(VPSDE(), torch.randn(3, 5, generator=generator, dtype=torch.float64), 0.3)
    x = model.draw(4, generator)
    for probes in (None, 3):
        whole = log_likelihood(model, x, probes=probes)
        torch.testing.assert_close(log_likelihood(model, x, probes=probes, at_once=at_once).nats, whole.nats)


def test_gaussian_probes_agree_too(generator):
    model = GaussianMixture(VPSDE(), torch.randn(4, 16, generator=generator, dtype=torch.float64), 0.3)
    x = model.draw(64, generator)
    full, probed = log_likelihood(model, x), log_likelihood(model, x, probes=16, probe_kind="gaussian")
    assert ((probed.nats - full.nats).abs() < 3 * probed.stderr).float().mean() >= 0.95
    assert probed.stderr.mean() > log_likelihood(model, x, probes=16).stderr.mean()
    with pytest.raises(ValueError, match="rademacher, gaussian"):
        log_likelihood(model, x, probes=2, probe_kind="sphere")


@pytest.mark.parametrize(
    ("process", "probes"), [*((name, None) for name in PROCESSES), ("vp", 2)], indirect=["process"]
)
def test_gradients_on_request(process, generator, probes):
    """Of the exact density of a Gaussian, d log p / d x and d log p / d mean; the prior's part by its own flow."""
    mean = torch.tensor([[0.4, -0.2]], dtype=torch.float64, requires_grad=True)
    model = GaussianMixture(process, mean.detach(), 0.5)
    del model.means
    model.means = mean
    x = torch.randn(3, 2, generator=generator, dtype=torch.float64).requires_grad_()
    found = log_likelihood(model, x, rtol=1e-7, atol=1e-7, probes=probes, differentiable=True)
    of_x, of_mean = torch.autograd.grad(found.nats.sum(), (x, mean))
    t_min, t_max = (torch.tensor(t, dtype=torch.float64) for t in (process.t_min, process.t_max))
    alpha, alpha_end = process.alpha(t_min), process.alpha(t_max)
    before, after = ((process.alpha(t) * 0.5) ** 2 + process.sigma(t) ** 2 for t in (t_min, t_max))
    stretch = (after / before).sqrt()
    latent = alpha_end * mean + stretch * (x - alpha * mean)
    exact = process.prior_log_prob(latent)
    for found_part, exact_part in zip((of_x, of_mean), torch.autograd.grad(exact.sum(), (x, mean)), strict=True):
        torch.testing.assert_close(found_part, exact_part, rtol=1e-4, atol=1e-5)
    assert not log_likelihood(model, x, probes=probes).nats.requires_grad
