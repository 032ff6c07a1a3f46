"""Degenerate states: constant events, nothing to guide by, no residual, one pixel, one class. Nothing becomes NaN, and
what should come out is known exactly."""

import pytest
import torch

from samplers import SAMPLERS, generate
from samplers.repaint import RePaint
from sde import VPSDE, ScoreModel
from sde.guidance import (
    Autoguidance,
    Classifier,
    ClassifierFree,
    Conditional,
    DynamicThreshold,
    GuidanceInterval,
    GuidanceRescale,
    LikelihoodGuidance,
)
from sde.inverse import DPS, MMPS, Blur, Grayscale, Mask, PiGDM, Replacement, SuperResolution
from tests.oracles.exact import Gaussian

SDE, T = VPSDE(), torch.tensor(0.4, dtype=torch.float64)
DTYPES = [torch.float32, torch.float64]
SHAPES = [(1,), (1, 1, 1), (3, 4, 4)]


class Constant(ScoreModel):
    """The posterior mean of data that are all ``value``, whatever x and the label: D does not depend on x."""

    num_classes = 1

    def __init__(self, value):
        super().__init__(SDE)
        self.value = value
        self.sigma_data = 1.0

    def forward(self, x, t, cond=None):
        # A graph without a slope, as that of a network whose last layer is zero.
        return torch.full_like(x, self.value) + 0 * x


def one_class(model):
    return ClassifierFree(model, torch.tensor([0]), 3.0)


def flat_classifier(x, t):
    """Logits of one class: log p(y | x) is 0, and so is its gradient."""
    return x.flatten(1).sum(1, keepdim=True)


WRAPPED = {
    "classifier-free": one_class,
    "interval": lambda m: GuidanceInterval(one_class(m), 0.1, 10.0),
    "rescale": lambda m: GuidanceRescale(one_class(m), 1.0),
    "rescale of an interval": lambda m: GuidanceRescale(GuidanceInterval(one_class(m)), 0.7),
    "threshold": lambda m: DynamicThreshold(one_class(m), 0.9, -4.0, 4.0),
    "autoguidance": lambda m: Autoguidance(Conditional(m, torch.tensor([0])), Conditional(m, torch.tensor([0])), 2.0),
    "classifier": lambda m: Classifier(m, flat_classifier, torch.tensor([0]), 5.0),
    "classifier at the denoised": lambda m: Classifier(m, flat_classifier, torch.tensor([0]), 5.0, "denoised"),
    "likelihood": lambda m: LikelihoodGuidance(m, lambda x, t, y: 0 * x.flatten(1).sum(1), torch.zeros(1), 5.0),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("value", [0.0, 2.5])
@pytest.mark.parametrize("name", WRAPPED)
def test_guidance_of_constant_events_without_a_difference(name, value, shape, dtype):
    """Guided and unguided are the same constant: so is what comes out, for x that are constant themselves as well."""
    if name.startswith("rescale") and len(torch.zeros(shape).flatten()) == 1:
        pytest.skip("refused, as one value has no contrast")
    model = WRAPPED[name](Constant(value))
    for x in (torch.zeros(1, *shape, dtype=dtype), torch.full((1, *shape), -3.0, dtype=dtype)):
        for t in (T, T.expand(1)):
            found = model(x, t)
            assert found.dtype == dtype
            torch.testing.assert_close(found, torch.full_like(x, value))
    x = torch.zeros(1, *shape, dtype=dtype, requires_grad=True)
    (slope,) = torch.autograd.grad(model(x, T).sum(), x)
    assert slope.isfinite().all()


def test_rescale_where_one_of_the_two_has_no_contrast(generator):
    """std(D_base) / std(D): a base without contrast takes it from D; D without contrast has none to bring back."""

    class Pair(GuidanceInterval):
        def __init__(self, base, guided):
            super().__init__(one_class(Constant(0.0)))
            self.held = base, guided

        def pair(self, x, t):
            return self.held

    flat, wavy = torch.full((2, 1, 8), 2.0), torch.randn((2, 1, 8), generator=generator)
    mixed = torch.stack([flat[0], wavy[1]])
    for strength in (0.0, 0.7, 1.0):
        found = GuidanceRescale(Pair(wavy, mixed), strength)(flat, T)
        torch.testing.assert_close(found[0], flat[0])
        torch.testing.assert_close(found[1], wavy[1])
        found = GuidanceRescale(Pair(mixed, wavy), strength)(flat, T)
        torch.testing.assert_close(found[0], (1 - strength) * wavy[0])
        torch.testing.assert_close(found[1], wavy[1])


OPERATORS = {
    "mask": lambda shape: Mask(torch.ones(shape, dtype=torch.bool), shape),
    "means": lambda shape: SuperResolution(1, 1),
    "blur": lambda shape: Blur(torch.ones(1, dtype=torch.float64)),
    "nothing": lambda shape: lambda x: 0 * x,
}
METHODS = {"dps": DPS, "pigdm": PiGDM, "mmps": MMPS}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("method", METHODS)
def test_posteriors_where_there_is_nothing_to_weigh(method, operator, shape, dtype):
    """No residual, no Jacobian of the denoiser, no Jacobian of the operator: D is left as it is, without noise in y
    and with it."""
    measure = OPERATORS[operator](shape)
    x = torch.full((1, *shape), 0.3, dtype=dtype)
    gaussian = Gaussian(SDE, torch.zeros(shape, dtype=dtype), 1.0)
    for prior in (Constant(2.5), Constant(0.0), gaussian):
        denoised = prior(x, T)
        for sigma_y in (0.0, 0.1):
            found = METHODS[method](prior, measure, measure(denoised), sigma_y)(x, T)
            torch.testing.assert_close(found, denoised)
            far = measure(denoised) + 7
            found = METHODS[method](prior, measure, far, sigma_y)(x, T)
            assert found.isfinite().all()
            if prior is not gaussian or operator == "nothing":
                torch.testing.assert_close(found, denoised)
            elif sigma_y == 0 and method != "dps":
                torch.testing.assert_close(measure(found), far)


@pytest.mark.parametrize("method", [*METHODS, "replacement"])
def test_sampling_from_degenerate_data(method):
    """Data of which a channel is constant, one of its entries observed: both channels are finite, and the constant
    one comes out as it is."""
    mean = torch.tensor([[0.0, 0.0], [1.5, 1.5]], dtype=torch.float64)

    class HalfConstant(ScoreModel):
        def __init__(self):
            super().__init__(SDE)
            self.gaussian = Gaussian(SDE, mean, 1.0)

        def forward(self, x, t):
            found = self.gaussian(x, t)
            return torch.stack([found[:, 0], 1.5 + 0 * found[:, 1]], 1)

    mask = Mask(torch.tensor([True, False]), (2, 2))
    y = torch.tensor([[0.7, 1.5]], dtype=torch.float64)
    model = {**METHODS, "replacement": Replacement}[method](HalfConstant(), mask, y)
    for sampler in (RePaint(SAMPLERS["ancestral"](), 3), SAMPLERS["sa_solver"](), SAMPLERS["heun"]()):
        x = generate(model, sampler, 1, (2, 2), steps=15).x
        assert x.isfinite().all()
        torch.testing.assert_close(x[0, 1], mean[1].to(x), rtol=0, atol=1e-2)


def test_gray_of_black():
    """A gray value of 0 of one pixel, which is what was measured."""
    x = torch.zeros(1, 3, 1, 1)
    for method in METHODS.values():
        found = method(Gaussian(SDE, torch.zeros(3, 1, 1), 1.0), Grayscale(), torch.zeros(1, 1, 1, 1))(x, T)
        assert torch.equal(found, x)
