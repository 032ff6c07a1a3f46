"""Autoguidance: by a weaker model, exact on mixtures."""

import pytest
import torch

from samplers import SAMPLERS, generate, log_likelihood
from sde import VESDE, VPSDE, Transform
from sde.guidance.autoguidance import Autoguidance
from sde.guidance.classifier import Classifier
from sde.guidance.classifier_free import ClassifierFree
from sde.guidance.conditional import Conditional
from tests.oracles.by_class import LABELS, MEANS, STD, Bayes, ByClass, batch  # noqa: F401 (a fixture)
from tests.oracles.exact import Gaussian, GaussianMixture


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0, -0.5])
def test_scores_are_extrapolated(process, batch, scale):  # noqa: F811
    x, t = batch
    model, weak = GaussianMixture(process, MEANS, STD), GaussianMixture(process, MEANS, 2 * STD)
    expected = (1 - scale) * weak.score(x, t) + scale * model.score(x, t)
    torch.testing.assert_close(Autoguidance(model, weak, scale).score(x, t), expected, rtol=1e-6, atol=1e-6)


def test_samples_in_closed_form():
    """The flow of N(0, a^2) is x proportional to v_a^(1/2), v_a = alpha^2 a^2 + sigma^2; guided by N(0, b^2) at scale 2
    it is v_a / v_b^(1/2): relative to the unguided samples, times a / b."""
    model, weak = (Gaussian(VPSDE(), torch.zeros(1).double(), std) for std in (0.5, 0.6))
    guided, plain = (
        generate(m, SAMPLERS["ode"](1e-6, 1e-6), 4, (1,)).x for m in (Autoguidance(model, weak, 2.0), model)
    )
    torch.testing.assert_close(guided / plain, torch.full_like(plain, 0.5 / 0.6), rtol=1e-3, atol=0)


def test_it_wraps_and_is_wrapped(process, batch):  # noqa: F811
    x, t = batch
    model, weak = ByClass(process), ByClass(process)
    weak.components = [Gaussian(process, mean, 2 * STD) for mean in MEANS]
    strong = ClassifierFree(model, LABELS, 1.5)
    guided = Autoguidance(strong, Conditional(weak, LABELS), 2.0)
    expected = 2 * strong(x, t) - Conditional(weak, LABELS)(x, t)
    torch.testing.assert_close(guided(x, t), expected, rtol=1e-9, atol=1e-9)
    assert guided.base is strong.base
    part = guided.rows(torch.tensor([3, 0]))
    torch.testing.assert_close(part(x[[3, 0]], t[[3, 0]]), expected[[3, 0]], rtol=1e-9, atol=1e-9)
    both = Classifier(guided, Bayes(process), LABELS, 0.5)
    gradient = Classifier(model.mixture, Bayes(process), LABELS, 0.5)(x, t) - model.mixture(x, t)
    torch.testing.assert_close(both(x, t), expected + gradient, rtol=1e-6, atol=1e-6)


def test_calls_and_density(generator):
    model, weak = GaussianMixture(VPSDE(), MEANS, STD), GaussianMixture(VPSDE(), MEANS, 0.5)
    for scale, calls in ((1.0, 1), (0.0, 1), (2.0, 2)):
        assert generate(Autoguidance(model, weak, scale), SAMPLERS["ddim"](), 3, (2,), steps=4).mean_nfe == calls * 5
    x = model.draw(2, generator)
    for scale, alone in ((1.0, model), (0.0, weak)):
        same = log_likelihood(Autoguidance(model, weak, scale), x).nats
        torch.testing.assert_close(same, log_likelihood(alone, x).nats)
    with pytest.raises(ValueError, match="not a normalized density"):
        log_likelihood(Autoguidance(model, weak, 2.0), x)


def test_the_two_models_must_agree():
    model = GaussianMixture(VPSDE(), MEANS, STD)
    for weak in (
        GaussianMixture(VESDE(), MEANS, STD),
        GaussianMixture(VPSDE(beta_max=10.0), MEANS, STD),
        GaussianMixture(VPSDE(), MEANS, STD, transform=Transform((1.0,), (2.0,))),
    ):
        with pytest.raises(ValueError, match="needs the same of both"):
            Autoguidance(model, weak, 2.0)
