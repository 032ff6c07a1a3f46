"""Guidance by prompts on a mixture that is known exactly: towards a prompt, and away from another or from none."""

import pytest
import torch

from sde import SDES, ScoreModel
from sde.condition.text.token_vectors import TokenVectors
from sde.condition.text.tokenizer import Characters
from sde.guidance.classifier_free import ClassifierFree
from sde.guidance.conditional import Conditional
from sde.process import expand

MEANS, STDS = torch.tensor([[-2.0, 0.0], [1.0, 1.0], [0.0, 3.0]]).double(), torch.tensor([0.3, 0.5, 0.8]).double()
TEXT = TokenVectors(Characters("abc"), None, 4, ("vector",))


def posterior_mean(x, alpha, sigma, weights):
    """E[x_0 | x_t = x] of sum_k weights_k N(MEANS_k, STDS_k^2 I), by Bayes' rule, of one x."""
    terms, total = torch.zeros_like(x), 0.0
    for weight, mean, std in zip(weights, MEANS, STDS, strict=True):
        variance = alpha**2 * std**2 + sigma**2
        density = weight * (-(x - alpha * mean).square().sum() / (2 * variance)).exp() / variance
        own = mean + alpha * std**2 / variance * (x - alpha * mean)
        terms, total = terms + density * own, total + density
    return terms / total


class Told(ScoreModel):
    """The mixture of the components that letters name; of all alike for null. A letter that is there twice weighs more:
    the squares of a unit vector are weights."""

    num_classes, conditions, text = None, {"vector": (3,)}, TEXT

    def forward(self, x, t, cond=None):
        vector = x.new_full((len(x), 3), torch.nan) if cond is None else cond["vector"].to(x.dtype)
        weights = vector.square().nan_to_num(1 / 3)
        alpha, sigma = (expand(torch.as_tensor(f(t)), x) for f in (self.sde.alpha, self.sde.sigma))
        rows = [posterior_mean(*one) for one in zip(x, alpha.expand(len(x), 1), sigma.expand(len(x), 1), weights,
                                                    strict=True)]  # fmt: skip
        return torch.stack(rows)


@pytest.mark.parametrize("process", ["vp", "ve"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 3.5])
@pytest.mark.parametrize("negative", ["bc", "aab", ""])
def test_a_negative_prompt_takes_the_place_of_null(process, scale, negative):
    """D(negative) + scale (D(prompt) - D(negative)) (Ho and Salimans 2022, eq. 6); the empty prompt is null."""
    model = Told(SDES[process]())
    t = torch.tensor(0.4 * model.sde.t_max, dtype=torch.float64)
    x = torch.tensor([[0.5, 1.0], [-1.0, 0.2]], dtype=torch.float64) * float(model.sde.sigma(t) + model.sde.alpha(t))
    guided = ClassifierFree(model, TEXT(["a", "cab"]), scale, negative=TEXT([negative] * 2))
    alpha, sigma = (float(f(t)) for f in (model.sde.alpha, model.sde.sigma))
    shares = {"": [1 / 3] * 3, "bc": [0, 0.5, 0.5], "aab": [0.8, 0.2, 0]}[negative]
    for row, told in enumerate(([1.0, 0, 0], [1 / 3] * 3)):
        towards, away = (posterior_mean(x[row], alpha, sigma, weights) for weights in (told, shares))
        torch.testing.assert_close(guided(x, t)[row], away + scale * (towards - away), rtol=1e-6, atol=1e-6)
    if not negative:
        torch.testing.assert_close(guided(x, t), ClassifierFree(model, TEXT(["a", "cab"]), scale)(x, t))
    if scale == 1:
        torch.testing.assert_close(guided(x, t), Conditional(model, TEXT(["a", "cab"]))(x, t))
