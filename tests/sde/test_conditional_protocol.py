"""Models of one's own under every kind of guidance: a conditional one, and one with nothing but the protocol."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from samplers import Heun, encode, generate, likelihood_report, log_likelihood, plan
from sde import VPSDE
from sde.condition.tree import labels_of
from sde.guidance import (
    Autoguidance,
    Classifier,
    ClassifierFree,
    Conditional,
    DynamicThreshold,
    GuidanceInterval,
    GuidanceRescale,
    LikelihoodGuidance,
    StaticThreshold,
)
from sde.inverse import DPS, MMPS, Mask, PiGDM, Replacement
from sde.process.coefficients import expand
from tests.oracles.by_class import MEANS, STD, Bayes, ByClass

SIZE = torch.tensor([0, 2, 1])


class Bare(nn.Module):
    """ByClass by the members of the protocols alone: no base class, no transform, nothing that may be left out."""

    num_classes = 3

    def __init__(self):
        super().__init__()
        self.sde = VPSDE()
        self.register_buffer("like", torch.zeros(1, dtype=torch.float64))
        self.exact = [ByClass(self.sde)]

    def forward(self, x, t, cond=None):
        return self.exact[0].forward(x, t, cond)

    def rows(self, index):
        return self

    def score(self, x, t):
        at = self.sde.level(t)
        return (expand(at.alpha, x) * self(x, t) - x) / expand(at.sigma**2, x)

    def noise(self, x, t):
        return -expand(self.sde.level(t).sigma, x) * self.score(x, t)

    def velocity(self, x, t):
        at = self.sde.level(t)
        return expand(at.f, x) * x - expand(0.5 * at.g2, x) * self.score(x, t)


def wrappers(model):
    """By name, everything that goes around a score model, around this one."""
    mask, y = Mask([True, False], (2,)), [[0.5]]
    guided = ClassifierFree(model, SIZE, 2.0)
    return {
        "conditional": Conditional(model, SIZE),
        "classifier-free": guided,
        "negative": ClassifierFree(model, SIZE, 2.0, negative=[1, 1, 0]),
        "classifier": Classifier(model, Bayes(model.sde), SIZE, 2.0),
        "likelihood": LikelihoodGuidance(model, lambda x, t, y: -(x - y).square().sum(1), [[0.0, 1.0]]),
        "autoguidance": Autoguidance(model, Conditional(model, [0, 1, 2]), 2.0),
        "interval": GuidanceInterval(guided, 0.1, 3.0),
        "rescale": GuidanceRescale(guided),
        "threshold": DynamicThreshold(model, low=-2.0, high=2.0),
        "static": StaticThreshold(model, -2.0, 2.0),
        "replacement": Replacement(model, mask, y),
        "dps": DPS(model, mask, y, 0.1),
        "pigdm": PiGDM(model, mask, y, 0.1),
        "mmps": MMPS(model, mask, y, 0.1),
    }


NAMES = (*wrappers(Bare()),)


@pytest.mark.parametrize("name", NAMES)
def test_wrapped_models_of_the_protocol_are_those_of_the_library(name):
    bare, own = (wrappers(model)[name] for model in (Bare(), ByClass(VPSDE())))
    found, expected = (generate(model, Heun(), 3, (2,), steps=4) for model in (bare, own))
    torch.testing.assert_close(found.x, expected.x, rtol=1e-9, atol=1e-9)
    assert found.x.isfinite().all()
    assert torch.equal(found.nfe, expected.nfe)
    x = MEANS + 0.1
    options = {"rtol": 0.1, "atol": 0.1, "guided": True}
    likelihoods = [log_likelihood(model, x, **options).nats for model in (bare, own)]
    torch.testing.assert_close(*likelihoods, rtol=1e-6, atol=1e-6)


def test_a_model_that_does_not_say_is_a_density():
    """At the scales that guide nothing."""
    model, bound = Bare(), Conditional(Bare(), SIZE)
    assert LikelihoodGuidance(model, lambda x, t, y: x.sum(1), [0.0], scale=0.0).normalized
    assert Autoguidance(model, bound, 1.0).normalized
    assert Autoguidance(bound, model, 0.0).normalized
    assert not Autoguidance(model, bound, 2.0).normalized


def test_the_model_itself_serves_everything():
    bare, own, x = Bare(), ByClass(VPSDE()), MEANS + 0.1
    for function in (
        lambda model: encode(model, x, rtol=0.1, atol=0.1).latent,
        lambda model: plan(model, (2,), 2).times,
        lambda model: likelihood_report(model, x, rtol=0.1, atol=0.1, bound_draws=2, discrete_steps=20).nats,
    ):
        torch.testing.assert_close(function(bare), function(own), rtol=1e-6, atol=1e-6)


def test_classifier_free_is_by_the_rule_of_bayes():
    """D + 2 (D_y - D) in the classes' exact posterior means; what is bound is told by class."""
    model, x, t = Bare(), MEANS + 0.2, torch.tensor(0.3, dtype=torch.float64)
    at = model.sde.level(t)
    gain = at.alpha * STD**2 / (at.alpha**2 * STD**2 + at.sigma**2)
    of_class = MEANS[SIZE] + gain * (x - at.alpha * MEANS[SIZE])
    whole = model(x, t)
    torch.testing.assert_close(Conditional(model, SIZE)(x, t), of_class)
    torch.testing.assert_close(ClassifierFree(model, SIZE, 2.0)(x, t), whole + 2 * (of_class - whole))


class WithoutCond(Bare):
    def forward(self, x, t):
        return x


class NeverNull(Bare):
    null_trained = False


class Vectors(Bare):
    """Conditioned on numbers, without classes: it has no ``num_classes`` at all."""

    num_classes = property(lambda self: self.missing)
    conditions: ClassVar = {"vector": (2,)}

    def forward(self, x, t, cond=None):
        assert labels_of(cond) is None
        return cond["vector"].to(x.dtype).nan_to_num(0.0)


def test_what_is_missing_is_said_at_the_door():
    with pytest.raises(ValueError, match=r"Linear takes no condition: .* `num_classes` or `conditions`, and a forward"):
        ClassifierFree(nn.Linear(2, 2), SIZE, 2.0)
    with pytest.raises(ValueError, match=r"WithoutCond has num_classes .* must be forward\(x, t, cond\)"):
        Conditional(WithoutCond(), SIZE)
    with pytest.raises(ValueError, match="unconditional branch, which this model never trained"):
        ClassifierFree(NeverNull(), SIZE, 2.0)
    assert ClassifierFree(NeverNull(), SIZE, 1.0).normalized
    for wrap in (
        lambda model: DPS(model, lambda x: x, torch.zeros(1, 2)),
        lambda model: Autoguidance(model, Bare(), 2.0),
        lambda model: Autoguidance(Bare(), model, 2.0),
        lambda model: LikelihoodGuidance(model, lambda x, t, y: x.sum(1), torch.zeros(1)),
        lambda model: DynamicThreshold(model, low=0.0, high=1.0),
    ):
        for wrong in (nn.Linear(2, 2), lambda x, t: x, None):
            with pytest.raises(TypeError, match="needs a score model, a torch module with an `sde`"):
                wrap(wrong)
    wish = torch.tensor([[1.0, 2.0]])
    bound = ClassifierFree(Vectors(), {"vector": wish}, 3.0)
    x, t = torch.zeros(2, 2, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    assert torch.equal(bound(x, t), 3 * wish.double().expand(2, 2))


@pytest.mark.parametrize("name", NAMES)
def test_states_that_are_no_tensors_are_said(name):
    with pytest.raises(TypeError, match=r"x is ndarray: needs a tensor of shape \(B, \*event\)"):
        wrappers(Bare())[name](np.zeros((3, 2)), torch.tensor(0.5))
