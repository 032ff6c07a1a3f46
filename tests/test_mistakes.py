"""What users give by mistake, in Python: the exception and its sentence. Those of the command line are in test_cli.py
and beside each mode's own tests."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from samplers import SAMPLERS, SeededNoise, generate, likelihood_report
from sde import VPSDE, Denoiser, NoisyClassifier
from sde.guidance.classifier import Classifier
from sde.guidance.classifier_free import ClassifierFree
from sde.guidance.conditional import Conditional
from sde.guidance.gradient import LikelihoodGuidance
from sde.guidance.rescale import GuidanceRescale
from sde.inverse.operators import Mask
from sde.inverse.posterior import PiGDM
from sde.networks.classifier import MLPClassifier
from sde.networks.mlp import MLP

HEUN = SAMPLERS["heun"]()
X, T = torch.zeros(4, 3), torch.tensor(0.5)


def denoiser(classes: int | None = None, **options) -> Denoiser:
    return Denoiser(MLP((3,), classes, width=8, layers=1), VPSDE(), event_shape=(3,), **options)


class Answers(nn.Module):
    """A network that returns what it is told to."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x, c_noise, cond=None):
        return self.answer(x)


def drawn(**options):
    return generate(denoiser(), HEUN, 2, (3,), **options)


LABELS = torch.arange(4)
MASK = Mask(torch.tensor([True, False, True]), (3,))
MISTAKES = {
    "condition for an unconditional model": (lambda: denoiser()(X, T, LABELS), ValueError, "model is unconditional"),
    "bound to an unconditional model": (lambda: Conditional(denoiser(), LABELS), ValueError, "model is unconditional"),
    "1-based labels": (
        lambda: Conditional(denoiser(4), LABELS + 1),
        ValueError,
        "allowed are 0 to 3 (are they 1-based",
    ),
    "float labels": (lambda: denoiser(4)(X, T, LABELS.float()), ValueError, "labels"),
    "guidance without its branch": (
        lambda: ClassifierFree(denoiser(4, null_trained=False), LABELS, 2.0),
        ValueError,
        "train with `cond_dropout` above 0, or use scale 1",
    ),
    "a guidance scale that is no number": (
        lambda: ClassifierFree(denoiser(4), LABELS, float("nan")),
        ValueError,
        "guidance scale nan: needs a finite number",
    ),
    "a guidance scale in words": (lambda: ClassifierFree(denoiser(4), LABELS, "2"), ValueError, "guidance scale '2'"),
    "an infinite classifier scale": (
        lambda: Classifier(denoiser(), NoisyClassifier(MLPClassifier((3,), 2, 8, 1), VPSDE()), LABELS % 2, torch.inf),
        ValueError,
        "guidance scale inf",
    ),
    "a time that is no number": (lambda: denoiser()(X, torch.tensor(torch.nan)), ValueError, "t = nan: needs times"),
    "no steps": (lambda: drawn(steps=0), ValueError, "steps = 0: needs an integer from 1"),
    "half steps": (lambda: drawn(steps=2.5), ValueError, "steps = 2.5: needs an integer"),
    "duplicate times": (
        lambda: drawn(grid=torch.tensor([1, 0.5, 0.5])),
        ValueError,
        "strictly decreasing: entry 2 (0.5)",
    ),
    "rising times": (lambda: drawn(grid=torch.tensor([0.1, 1])), ValueError, "strictly decreasing"),
    "times beyond the process": (lambda: drawn(grid=torch.tensor([2, 0.1])), ValueError, "stay within t_max = 1"),
    "step number as a time": (
        lambda: denoiser()(X, torch.tensor(500)),
        TypeError,
        "t is torch.int64: needs a tensor of",
    ),
    "number as a time": (lambda: denoiser()(X, 0.5), TypeError, "t is float: needs a tensor"),
    "noise level as a time": (
        lambda: denoiser()(X, torch.tensor(80.0)),
        ValueError,
        "t = 80: needs times from t_min = 0.001",
    ),
    "a time before the data": (lambda: denoiser()(X, torch.zeros(4)), ValueError, "t = 0: needs times"),
    "a classifier's time": (
        lambda: NoisyClassifier(MLPClassifier((3,), 2, 8, 1), VPSDE())(X, torch.tensor(999.0)),
        ValueError,
        "t = 999: needs",
    ),
    "times of shape (B, 1)": (
        lambda: denoiser()(X, torch.full((4, 1), 0.5)),
        ValueError,
        "t has shape (4, 1): needs () or",
    ),
    "too few times": (lambda: denoiser()(X, torch.full((3,), 0.5)), ValueError, "t has shape (3,): needs () or (4,)"),
    "a sampler as the model": (lambda: generate(HEUN, HEUN, 2, (3,)), TypeError, "expected a score model"),
    "a sampler as the network": (
        lambda: Denoiser(HEUN, VPSDE()),
        TypeError,
        "needs a torch module, network(x, c_noise",
    ),
    "a network as the model": (lambda: generate(nn.Linear(3, 3), HEUN, 2, (3,)), TypeError, "expected a score model"),
    "a sampler's name": (lambda: generate(denoiser(), "heun", 2, (3,)), TypeError, "sampler = 'heun': needs an object"),
    "a sampler's class": (
        lambda: generate(denoiser(), SAMPLERS["heun"], 2, (3,)),
        TypeError,
        "needs an instance, Heun()",
    ),
    "twice the channels": (
        lambda: Denoiser(Answers(lambda x: torch.cat([x, x], 1)), VPSDE())(X, T),
        ValueError,
        "returned shape (4, 6) for x",
    ),
    "a tuple": (
        lambda: Denoiser(Answers(lambda x: (x, x)), VPSDE())(X, T),
        TypeError,
        "wrap a network that returns more",
    ),
    "an object that holds the output": (
        lambda: Denoiser(Answers(lambda x: SimpleNamespace(sample=x)), VPSDE())(X, T),
        TypeError,
        "wrap a network that returns more",
    ),
    "no condition for a model that always had one": (
        lambda: generate(denoiser(4, null_trained=False), HEUN, 2, (3,)),
        ValueError,
        "never trained its unconditional branch: bind a condition to it",
    ),
    "conditions of another number of rows": (lambda: Conditional(denoiser(4), LABELS)(X[:3], T), ValueError, "x has 3"),
    "one hot labels": (lambda: denoiser(4)(X, T, torch.eye(4)), ValueError, "labels"),
    "a mask of numbers": (lambda: Mask(torch.ones(3), (3,)), ValueError, "needs torch.bool"),
    "guidance around guidance": (
        lambda: ClassifierFree(ClassifierFree(denoiser(4), LABELS, 2.0), LABELS, 2.0),
        ValueError,
        "ClassifierFree takes no condition: bind the Denoiser itself, once",
    ),
    "guidance around what is bound": (
        lambda: ClassifierFree(Conditional(denoiser(4), LABELS), LABELS, 2.0),
        ValueError,
        "Conditional takes no condition: bind the Denoiser itself",
    ),
    "a condition for what is guided": (
        lambda: Conditional(GuidanceRescale(ClassifierFree(denoiser(4), LABELS, 2.0)), LABELS),
        ValueError,
        "GuidanceRescale takes no condition",
    ),
    "guidance around a network": (
        lambda: ClassifierFree(denoiser(4).network, LABELS, 2.0),
        ValueError,
        "MLP takes no condition: bind the Denoiser itself",
    ),
    "words as labels": (lambda: Conditional(denoiser(4), ["cat"]), ValueError, "a list that is no tensor (too many"),
    "lists of other lengths": (lambda: Conditional(denoiser(4), [[0], [1, 2]]), ValueError, "one row per sample"),
    "a list of real labels": (lambda: Conditional(denoiser(4), [0.0, 1.0]), ValueError, "labels, which are integers"),
    "a list of labels out of range": (lambda: ClassifierFree(denoiser(4), [4], 2.0), ValueError, "label 4 is out of"),
    "a list for the model itself": (
        lambda: denoiser(4)(X, T, [0, 1, 2, 3]),
        ValueError,
        "the condition 'labels' is no tensor but list: torch.tensor makes one",
    ),
    "y without rows": (
        lambda: generate(PiGDM(denoiser(), MASK, torch.zeros(2)), HEUN, 1, (3,), steps=1),
        ValueError,
        "the operator makes (1, 2) of x of shape (1, 3), a row of y has shape (): y needs a row for each sample, or "
        "one for all as y[None]",
    ),
    "y of fewer rows": (
        lambda: generate(PiGDM(denoiser(), MASK, torch.zeros(2, 2)), HEUN, 3, (3,), steps=1),
        ValueError,
        "a condition or y is bound to 2 samples, 3 are asked for",
    ),
    "words as y": (lambda: PiGDM(denoiser(), MASK, ["dark"]), ValueError, "a list that is no tensor"),
    "too few seeds": (
        lambda: drawn(seed=[1]),
        ValueError,
        "seed has 1 seeds, 2 samples are asked for: give one per sample",
    ),
    "no seed": (lambda: drawn(seed=None), ValueError, "seed = None: needs an integer from 0"),
    "a negative seed": (lambda: drawn(seed=[0, -1]), ValueError, "needs integers from 0"),
    "seeds of another batch": (
        lambda: SeededNoise([1, 2])(X),
        ValueError,
        "has 2 seeds, x has 4 rows: give one seed per row",
    ),
    "another event shape": (lambda: generate(denoiser(), HEUN, 2, (4,)), ValueError, "data have the event shape (3,)"),
    "double precision": (lambda: denoiser()(X.double(), T), ValueError, "bring one to the other with .to"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name):
    action, kind, words = MISTAKES[name]
    with pytest.raises(kind, match=re.escape(words)) as caught:
        action()
    assert len(str(caught.value)) < 400


def squares(x, t, y):
    return -(x - y).square().sum(1)


@pytest.mark.parametrize("make", [
    lambda of: ClassifierFree(denoiser(4), of([0, 1, 2, 3]), 2.0, negative=of([1])),
    lambda of: ClassifierFree(denoiser(4), of(2), 2.0),
    lambda of: Conditional(Denoiser(MLP((3,), 4, width=8, layers=1, conditions={"vector": (2,)}), VPSDE()),
                           {"labels": of([1]), "vector": of([[1.0, 2.0]])}),
    lambda of: Classifier(denoiser(), NoisyClassifier(MLPClassifier((3,), 4, 8, 1), VPSDE()), of([0, 1, 2, 3])),
    lambda of: LikelihoodGuidance(denoiser(), squares, of([[1.0, 2.0, 3.0]])),
    lambda of: PiGDM(denoiser(), MASK, of([[1.0, 2.0]]), 0.1),
])  # fmt: skip
def test_numbers_are_taken_for_tensors(make):
    """Lists and arrays, reals in double precision too, where a tensor is meant."""
    found = []
    for of in (torch.tensor, lambda values: values, np.array):
        torch.manual_seed(0)
        found.append(make(of)(X, T))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert found[0].dtype == torch.float32


def test_a_network_of_another_precision_is_brought_to_that_of_x():
    assert Denoiser(Answers(lambda x: x.half()), VPSDE())(X, T).dtype == torch.float32


def test_one_step_is_one_step():
    assert drawn(steps=1).x.isfinite().all()


def test_seeds_of_a_run_draw_its_samples_again():
    run = drawn(seed=0)
    again = generate(denoiser(), HEUN, 1, (3,), seed=run.seeds[1:])
    assert again.seeds == run.seeds[1:]


def test_the_model_is_evaluated_and_left_as_it_was():
    model = Denoiser(MLP((3,), None, width=8, layers=1, dropout=0.5), VPSDE(), event_shape=(3,))
    model.network.head = nn.Sequential(nn.Linear(8, 3), nn.Dropout(0.5))
    first, second = (generate(model.train(), HEUN, 2, (3,), steps=2).x for _ in range(2))
    assert torch.equal(first, second)
    assert model.training


def test_continuous_data_have_nats_and_no_bits():
    assert likelihood_report(denoiser(), X, probes=2).unit == "nats"
