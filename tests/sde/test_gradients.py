"""Guidance by the gradient of any log p(y | x), against the closed form of linear measurements of Gaussian data."""

import pytest
import torch

from samplers import SAMPLERS, generate
from sde import VPSDE
from sde.guidance.classifier import Classifier
from sde.guidance.gradient import POINTS, LikelihoodGuidance
from tests.oracles.by_class import LABELS, MEANS, STD, ByClass, batch  # noqa: F401 (a fixture)
from tests.oracles.exact import Gaussian

MEAN, DIRECTION = torch.tensor([0.4, -0.3], dtype=torch.float64), torch.tensor([0.6, 0.8], dtype=torch.float64)
NOISE = 0.3


def measured(prior, point):
    """log p(y | x_t) of y = DIRECTION . x_0 + NOISE z, as a function of x_t or of the posterior mean."""

    def log_prob(x, t, y):
        d = x if point == "denoised" else prior(x, t)
        snr = (prior.sde.alpha(t) / prior.sde.sigma(t)) ** 2
        return -0.5 * (d @ DIRECTION - y) ** 2 / (NOISE**2 + 1 / (1 / STD**2 + snr))

    return log_prob


@pytest.mark.parametrize("point", POINTS)
def test_a_measurement_gives_the_exact_posterior_mean(process, batch, generator, point):  # noqa: F811
    x, t = batch
    y = torch.randn(6, generator=generator, dtype=torch.float64)
    prior = Gaussian(process, MEAN, STD)
    alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
    precision = (1 / STD**2 + (alpha / sigma) ** 2)[..., None] * torch.eye(2)
    precision = precision + torch.outer(DIRECTION, DIRECTION) / NOISE**2
    weighted = MEAN / STD**2 + alpha / sigma**2 * x + y[:, None] * DIRECTION / NOISE**2
    exact = torch.linalg.solve(precision, weighted)
    once, twice = (LikelihoodGuidance(prior, measured(prior, point), y, scale, point) for scale in (1.0, 2.0))
    torch.testing.assert_close(once(x, t), exact, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(twice(x, t), 2 * exact - prior(x, t), rtol=1e-6, atol=1e-6)
    part = once.rows(torch.tensor([4, 1]))
    torch.testing.assert_close(part(x[[4, 1]], t[[4, 1]]), exact[[4, 1]], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["ddim", "ode", "ancestral"])
def test_samples_follow_the_posterior(name):
    prior = Gaussian(VPSDE(), MEAN, STD)
    guided = LikelihoodGuidance(prior, measured(prior, "denoised"), torch.tensor(0.5).double(), 1.0, "denoised")
    x = generate(guided, SAMPLERS[name](), 500, (2,), steps=None if name == "ode" else 60).x.double()
    covariance = torch.linalg.inv(torch.eye(2) / STD**2 + torch.outer(DIRECTION, DIRECTION) / NOISE**2)
    mean = covariance @ (MEAN / STD**2 + 0.5 * DIRECTION / NOISE**2)
    assert (x.mean(0) - mean).abs().max() < 0.06
    assert (x.T.cov() - covariance).abs().max() < 0.03


def test_one_network_call_serves_both_parts(batch):  # noqa: F811
    """D(x_t) for log p is D(x_t) for the result, and its gradient passes through the model."""
    x, t = batch
    prior = Gaussian(VPSDE(), MEAN, STD)
    guided = LikelihoodGuidance(prior, measured(prior, "denoised"), torch.zeros(1).double(), 1.0, "denoised")
    calls = []
    prior.register_forward_hook(lambda *_: calls.append(1))
    assert not guided(x, t.clamp(min=1e-3)).requires_grad
    assert len(calls) == 1


@pytest.mark.parametrize("point", POINTS)
def test_a_guided_model_can_be_differentiated(process, batch, point):  # noqa: F811
    x, t = batch
    model = ByClass(process)
    guided = Classifier(model.mixture, lambda x, t: -((x[:, None] - MEANS) ** 2).sum(2), LABELS, 1.5, point)
    leaf, step = x.clone().requires_grad_(), 1e-5 * process.sigma(t)
    (found,) = torch.autograd.grad(guided(leaf, t).sum(), leaf)
    for axis in range(2):
        moved = step[:, None] * torch.eye(2)[axis]
        finite = (guided(x + moved, t) - guided(x - moved, t)).sum(1) / (2 * step)
        torch.testing.assert_close(found[:, axis], finite, rtol=1e-4, atol=1e-4)


def test_refusals():
    model = ByClass(VPSDE()).mixture
    x, t, y = torch.zeros(2, 2).double(), torch.tensor(0.5).double(), torch.zeros(2).double()
    for function, words in (
        (lambda x, t, y: (x.sum(1) - y).sum(), r"shape \(\) and a gradient .* must have shape \(2,\)"),
        (lambda x, t, y: (x.sum(1) - y).detach(), "no gradient"),
    ):
        with pytest.raises(ValueError, match=words):
            LikelihoodGuidance(model, function, y)(x, t)
    with pytest.raises(ValueError, match=r"classifier returned shape \(2, 2\), and class 2 is asked for"):
        Classifier(model, lambda x, t: x, torch.tensor([0, 2]))(x, t)
    with pytest.raises(ValueError, match="point = 'clean': needs one of noisy, denoised"):
        LikelihoodGuidance(model, measured(model, "noisy"), y, point="clean")
    with pytest.raises(ValueError, match="bound to 2 samples, x has 4"):
        LikelihoodGuidance(model, measured(model, "noisy"), y)(torch.zeros(4, 2).double(), t)
