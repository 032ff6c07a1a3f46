"""The evidence bound against linear Gaussian pairs, whose evidence is known."""

import math

import pytest
import torch

from samplers import evidence_bound, log_likelihood
from samplers.likelihood import evidence
from samplers.noise.seeded import POSTERIORS, SeededNoise, item_seeds
from sde import VPSDE, Transform
from sde.autoencoder import LatentTransform, LinearAutoencoder
from sde.autoencoder.transform import log_interval
from tests.oracles.exact import Gaussian
from tests.oracles.gaussian_pair import LATENTS, GaussianPair

SDE = VPSDE(beta_max=40.0, t_min=1e-6)
"""One that ends at N(0, 1), whatever the data, and begins at them: neither end is seen in the fifth digit."""


def items(generator, count=6):
    return 1.5 * torch.randn(count, 5, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("prior_std", [1.0, 0.5])
def test_with_the_exact_posterior_every_draw_is_the_evidence(generator, prior_std):
    pair = GaussianPair(prior_std)
    x = items(generator)
    found = evidence_bound(pair.model(SDE, prior_std), x, draws=3, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.nats, pair.log_evidence(x), rtol=0, atol=1e-5)
    assert found.stderr.max() < 1e-5
    torch.testing.assert_close(found.importance, found.nats, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.nats, found.reconstruction + found.prior + found.entropy)


@pytest.mark.parametrize(("off", "wider"), [(0.0, 1.0), (0.8, 1.0), (0.0, 0.5), (-0.3, 1.6)])
def test_it_lies_below_the_evidence_by_the_divergence(generator, monkeypatch, off, wider):
    """The integrand is quadratic in the draws: their expectation is the mean over these points."""
    pair = GaussianPair(off=off, wider=wider)
    points = LATENTS**0.5 * torch.cat([torch.eye(LATENTS), -torch.eye(LATENTS)]).double()
    numbers = iter(points)
    monkeypatch.setattr(evidence, "SeededNoise", lambda seeds: lambda mean: next(numbers).expand_as(mean))
    x = items(generator)
    found = evidence_bound(pair.model(SDE), x, draws=len(points), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.nats, pair.log_evidence(x) - pair.divergence, rtol=0, atol=1e-5)
    assert pair.divergence > 0.05 or (off, wider) == (0, 1)


def test_draws_are_the_items_own(generator):
    pair = GaussianPair(off=0.5)
    x, model = items(generator), pair.model(SDE)
    whole = evidence_bound(model, x, seed=4)
    part = evidence_bound(model, x[2:5], seed=4, first=2)
    torch.testing.assert_close(part.nats, whole.nats[2:5], rtol=0, atol=1e-8)
    assert (evidence_bound(model, x, seed=5).nats - whole.nats).abs().min() > 1e-4
    one = evidence_bound(model, x, draws=1)
    assert one.stderr.isinf().all()
    assert one.importance is None
    probed = evidence_bound(model, x, draws=2, probes=2)
    assert probed.importance is None
    # Of an affine flow with equal entries Rademacher probes are exact.
    torch.testing.assert_close(probed.nats, evidence_bound(model, x, draws=2).nats, rtol=0, atol=1e-3)


def test_quantized_data_have_the_probabilities_of_their_cells(generator):
    """One number of 6 levels behind one latent: the sum over z by quadrature."""
    coder = LinearAutoencoder.of(torch.tensor([[0.8]]), (1,), decoder=torch.tensor([[0.9]]), std=0.5, noise_std=0.35)
    latents = LatentTransform(coder, Transform.of_levels(6)).double()
    latents.shift.fill_(0.1)
    latents.scale.fill_(0.7)
    model = Gaussian(SDE, torch.zeros(1).double(), 1.0, transform=latents)
    x = torch.arange(6.0).double()[:, None]
    z = torch.linspace(-9, 9, 4001).double()[:, None]
    logs = torch.stack([latents.log_likelihood(k.expand_as(z), z) for k in x])
    torch.testing.assert_close(logs.logsumexp(0), torch.zeros(len(z)).double(), rtol=0, atol=1e-10)
    normal = torch.distributions.Normal(latents.decode(z)[:, 0], 0.35 * 3)
    torch.testing.assert_close(logs[2].exp(), normal.cdf(torch.tensor(3.0)) - normal.cdf(torch.tensor(2.0)))
    weights = torch.distributions.Normal(0, 1).log_prob(z[:, 0]) + math.log(18 / 4000)
    exact = (logs + weights).logsumexp(1)
    assert exact.exp().sum().item() == pytest.approx(1, abs=1e-5)
    # Encoded from the middles of the cells, and read off as integers.
    mean, std = latents.posterior(x + 0.5)
    one = mean + std * SeededNoise(item_seeds(0, POSTERIORS, 6))(mean)
    torch.testing.assert_close(evidence_bound(model, x, draws=1).reconstruction, latents.log_likelihood(x, one))
    many = x.repeat(100, 1)
    found = evidence_bound(model, many, draws=8, rtol=1e-4, atol=1e-4)
    nats, importance = (values.view(100, 6) for values in (found.nats, found.importance))
    # Both are bounds in expectation, the second a tighter one; its exponential is right in expectation.
    assert (nats.mean(0) < exact - 0.01).all()
    assert (importance.mean(0) > nats.mean(0)).all()
    assert (importance.mean(0) < exact).all()
    torch.testing.assert_close(importance.logsumexp(0) - math.log(100), exact, rtol=0, atol=0.06)


def test_probabilities_of_far_cells_are_finite():
    low, high = torch.tensor([-50.0, 30.0, -1e-9]).double(), torch.tensor([-40.0, 31.0, 1e-9]).double()
    found = log_interval(low, high)
    assert found.isfinite().all()
    assert found[0].item() == pytest.approx(torch.special.log_ndtr(torch.tensor(-40.0).double()).item(), abs=1e-12)
    assert found[2].exp().item() == pytest.approx(2e-9 / math.sqrt(2 * math.pi), rel=1e-6)


def test_what_has_no_bound_and_what_has_no_likelihood(generator):
    pair = GaussianPair()
    with pytest.raises(ValueError, match="the exact likelihood of the data is an integral"):
        log_likelihood(pair.model(SDE), items(generator))
    with pytest.raises(ValueError, match="has no latent variables"):
        evidence_bound(Gaussian(SDE, torch.zeros(5).double(), 1.0), items(generator))
    flat = LatentTransform(LinearAutoencoder.of(torch.eye(5), (5,), noise_std=0.1)).double()
    model = Gaussian(SDE, torch.zeros(5).double(), 1.0, transform=flat)
    with pytest.raises(ValueError, match="the encoder is deterministic"):
        evidence_bound(model, items(generator))
    unmeasured = LatentTransform(LinearAutoencoder.of(torch.eye(5), (5,), std=0.1)).double()
    with pytest.raises(ValueError, match="what is decoded, was never measured"):
        evidence_bound(Gaussian(SDE, torch.zeros(5).double(), 1.0, transform=unmeasured), items(generator))
    exact = LatentTransform(LinearAutoencoder.of(torch.eye(5), (5,), std=0.1, noise_std=0.0)).double()
    with pytest.raises(ValueError, match="what is decoded, is 0"):
        evidence_bound(Gaussian(SDE, torch.zeros(5).double(), 1.0, transform=exact), items(generator))
