"""What the loop and ``generate`` refuse, and how a failure is told: the sample, the step, the remedy."""

import math

import numpy as np
import pytest
import torch

from samplers import DDIM, SAMPLERS, generate, sample
from samplers.grid import make_grid
from sde import VPSDE, Denoiser, ScoreModel
from sde.guidance.classifier_free import ClassifierFree
from tests.oracles.exact import GaussianMixture
from tests.oracles.watched import Body, Seeing, Watched


class Breaks(ScoreModel):
    """Returns NaN, below a time, for samples whose state is far away, and where it was before."""

    far = 1e4

    def forward(self, x, t):
        beyond = x.abs() > self.far
        return torch.where(beyond & (t.max() < 0.5), math.nan, x * beyond)


@pytest.mark.parametrize(("name", "times", "words"), [
    ("ddim", [1.0, 0.75, 0.45, 0.2, 0.1], r"^sample 1 became non-finite in step 3 of 4 \(t = 0.45, sigma = 0.9341\)"),
    ("heun", [1.0, 0.75, 0.45, 0.2, 0.1], r"^sample 1 became non-finite in step 2 of 4 \(t = 0.75, sigma ="),
    ("ode", [1.0, 0.75, 0.45], r"sample 1 became non-finite in the step from t = 0.*\|x\| = .*, sigma = "),
    ("ddim", [1.0, 0.45], "sample 1 became non-finite in the last denoising call"),
])  # fmt: skip
def test_non_finite_samples_name_the_step(name, times, words):
    x = torch.tensor([[1.0, 1.0], [5e5, 5e5], [2.0, 2.0]])
    with pytest.raises(FloatingPointError, match=words):
        sample(Breaks(VPSDE()), SAMPLERS[name](), x, torch.tensor(times))


@pytest.mark.parametrize("solver", ["dopri5", "RK45"])
def test_failures_name_the_sample_of_the_run(solver):
    start = torch.ones(7, 2)
    start[5] = 1e6
    bad = {"start": start, "start_time": 0.6, "first": 100, "batch_size": 4}
    times = torch.tensor([0.6, 0.4, 0.3, 0.2])
    with pytest.raises(FloatingPointError, match=r"^sample 105 became non-finite in step 2 of 3 "):
        generate(Breaks(VPSDE()), DDIM(), 7, (2,), grid=times, **bad)
    with pytest.raises(FloatingPointError, match=r"^sample 105 became non-finite"):
        generate(Breaks(VPSDE()), SAMPLERS["ode"](solver=solver), 7, (2,), **bad)
    start[6] = 1e6
    with pytest.raises(FloatingPointError, match=r"^samples 105, 106 became non-finite"):
        generate(Breaks(VPSDE()), DDIM(), 7, (2,), steps=3, **bad)


class Returns(ScoreModel):
    def __init__(self, make):
        super().__init__(VPSDE())
        self.make = make

    def forward(self, x, t):
        return self.make(x)


class Output:
    """As some libraries return."""


WRONG = [
    (lambda x: x[:, :1], ValueError, r"returned shape \(3, 1\) for x of shape \(3, 2\)"),
    (lambda x: x[None], ValueError, r"returned shape \(1, 3, 2\)"),
    (lambda x: (x, x), TypeError, r"returned a tuple of Tensor, Tensor for x of shape \(3, 2\)"),
    (lambda x: Output(), TypeError, "returned a Output"),
    (lambda x: None, TypeError, "returned a NoneType"),
]


@pytest.mark.parametrize("name", ["ddim", "heun", "ode", "euler_maruyama"])
@pytest.mark.parametrize(("make", "kind", "words"), WRONG)
def test_models_that_return_something_else(name, make, kind, words):
    with pytest.raises(kind, match=words):
        sample(Returns(make), SAMPLERS[name](), torch.ones(3, 2), make_grid(VPSDE(), "uniform", 2))
    with pytest.raises(kind, match=words):
        generate(Returns(make), SAMPLERS[name](), 3, (2,), steps=2)


@pytest.mark.parametrize(("make", "kind", "words"), WRONG)
def test_networks_that_return_something_else(make, kind, words):
    class Network(torch.nn.Module):
        def forward(self, x, c_noise, cond=None):
            return make(x)

    with pytest.raises(kind, match="the network " + words):
        generate(Denoiser(Network(), VPSDE()), DDIM(), 3, (2,), steps=2)


BAD = torch.ones(4, 2)
BAD[2, 1] = math.nan


@pytest.mark.parametrize(("x", "kind", "words"), [
    (torch.ones(2), ValueError, r"x has shape \(2,\): needs \(batch, \*event\)"),
    (torch.ones(0, 2), ValueError, "at least one row"),
    (torch.ones(3, 5), ValueError, r"x.shape\[1:\] = \(5,\): the model's data have the event shape \(2,\)"),
    (torch.ones(3, 2, dtype=torch.long), TypeError, "dtype torch.int64: needs a floating-point"),
    (np.array(["a", "b"]), TypeError, "type ndarray: needs a tensor or an array of numbers"),
    (BAD, ValueError, "not finite in 1 of 4 rows, the first is row 2"),
])  # fmt: skip
def test_bad_states(x, kind, words):
    model = Denoiser(Body(), VPSDE(), event_shape=(2,))
    for checked in (model, ClassifierFree(model, torch.tensor(0), 1.0)):
        with pytest.raises(kind, match=words):
            sample(checked, DDIM(), x, make_grid(VPSDE(), "uniform", 2))


@pytest.mark.parametrize(("options", "words"), [
    ({"n": 0}, "n = 0"), ({"n": 2.5}, "n = 2.5: needs an integer"), ({"batch_size": 0}, "batch_size = 0"),
    ({"first": -1}, "first = -1"), ({"steps": 0}, "steps = 0"), ({"steps": -2}, "steps = -2"),
    ({"event_shape": (3,)}, r"event_shape = \(3,\): the model's data have the event shape \(2,\)"),
    ({"noise": "pink"}, "noise = 'pink': needs one of"), ({"seed": -1}, "seed = -1"),
    ({"grid": torch.tensor([0.1, 0.5])}, "strictly decreasing"),
    ({"grid": torch.tensor([0.5, 0.1]), "steps": 3}, "grid has 1 steps of its own"),
    ({"start": torch.ones(4, 2)}, "start was given without start_time"),
    ({"start_time": 0.5}, "start_time was given without start"),
    ({"start": torch.ones(3, 2), "start_time": 0.5}, r"start has shape \(3, 2\): needs \(4, 2\)"),
    ({"start": torch.ones(4, 2), "start_time": 1.5}, "start_time = 1.5: needs a time above t_min"),
    ({"start": torch.ones(4, 2), "start_time": 0.0}, "start_time = 0: needs a time above t_min"),
    ({"start_state": torch.ones(3, 2)}, r"start_state has shape \(3, 2\): needs \(4, 2\)"),
    ({"start_state": BAD}, "start_state is not finite in 1 of 4 rows, the first is row 2"),
    ({"start_state": torch.ones(4, 2), "start": torch.ones(4, 2), "start_time": 0.5}, "start and start_state"),
    ({"start_state": torch.ones(4, 2), "start_time": 0.5}, "start_time was given without start"),
    ({"start": BAD, "start_time": 0.5}, "start is not finite in 1 of 4 rows, the first is row 2"),
    ({"start": torch.ones(4, 2), "start_time": 0.5, "grid": torch.tensor([0.6, 0.1])}, "grid starts at 0.6"),
])  # fmt: skip
def test_bad_arguments(options, words):
    network = Seeing()
    arguments = {"n": 4, "event_shape": (2,)} | options
    with pytest.raises(ValueError, match=words):
        generate(Denoiser(network, VPSDE(), event_shape=(2,)), DDIM(), **arguments)
    assert not network.shapes, "refused before the first call"


def test_wrong_objects():
    with pytest.raises(TypeError, match="expected a score model"):
        generate(DDIM(), DDIM(), 2, (2,))
    with pytest.raises(TypeError, match="expected a score model"):
        sample(torch.nn.Linear(2, 2), DDIM(), torch.ones(2, 2), torch.tensor([0.5, 0.1]))
    with pytest.raises(TypeError, match=r"sampler = DDIM: needs an instance, DDIM\(\)"):
        generate(Watched(), DDIM, 2, (2,))
    with pytest.raises(TypeError, match="sampler = 'ddim'"):
        generate(Watched(), "ddim", 2, (2,))


def test_hooks_are_removed():
    model = Watched()
    generate(model, DDIM(), 2, (2,), steps=2, path=2)
    with pytest.raises(FloatingPointError):
        sample(Breaks(VPSDE()), DDIM(), torch.full((2, 2), 1e6), torch.tensor([0.6, 0.4]))
    assert not model._forward_hooks


@pytest.mark.parametrize(("change", "error", "words"), [
    ({"event_shape": 2}, ValueError, "sizes of one event"), ({"event_shape": ()}, ValueError, "sizes of one event"),
    ({"event_shape": (-2,)}, ValueError, "sizes of one event"), ({"n": 4.0}, ValueError, "n = 4.0"),
    ({"steps": math.nan}, ValueError, "steps = nan"), ({"steps": 10**8}, ValueError, "from 1 to 1000000"),
    ({"seed": 1.5}, ValueError, "seed = 1.5"), ({"grid": [1.0, 0.5, 0.6]}, ValueError, "strictly decreasing"),
])  # fmt: skip
def test_arguments_of_the_wrong_kind(change, error, words):
    model = GaussianMixture(VPSDE(), torch.tensor([[-1.0, 0.5], [1.0, 0.0]]), 0.3)
    arguments = {"n": 2, "event_shape": (2,)} | change
    with pytest.raises(error, match=words):
        generate(model, SAMPLERS["ddim"](), **arguments)
    assert generate(model, SAMPLERS["ddim"](), 2, (2,), grid=[1.0, 0.5, 0.001]).mean_nfe == 3
