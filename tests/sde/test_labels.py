"""Labels of any kind: types of integers, booleans, whole floats and names, at every door that takes labels."""

import numpy as np
import pytest
import torch

from samplers import Heun, generate
from sde import VPSDE, Denoiser
from sde.condition.tree import as_labels, drop_conditions, null_like
from sde.data import Dataset
from sde.data.labels import class_labels, known_labels
from sde.data.names import class_of, ordered
from sde.data.transform import Transform
from sde.guidance import Classifier, ClassifierFree, Conditional
from sde.model.classifier import NoisyClassifier
from sde.networks import MLP
from sde.networks.classifier import MLPClassifier
from sde.training.loss import BatchNoise, classifier_loss, denoising_loss
from tests.sde.small_data import refused

TYPES = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32,
         torch.uint64]  # fmt: skip
FORMS = [
    *(torch.tensor([1, 0]).to(kind) for kind in TYPES),
    *(np.array([1, 0]).astype(kind) for kind in ("?", "u1", "i1", "i2", "u2", "i4", "u4", "u8")),
    [1, 0],
    [True, False],
]


@pytest.fixture(scope="module")
def model():
    generator = torch.Generator().manual_seed(0)
    found = Denoiser(MLP((2,), 3, width=16, layers=1), VPSDE(), event_shape=(2,)).eval()
    for weights in found.parameters():
        weights.data.normal_(0, 0.5, generator=generator)
    return found


@pytest.mark.parametrize("labels", FORMS, ids=lambda x: f"{type(x).__name__}-{getattr(x, 'dtype', type(x))}")
def test_every_type_of_integers(model, labels):
    right = torch.tensor([1, 0])

    def drawn(cond):
        return generate(ClassifierFree(model, cond, 2.0), Heun(), 2, (2,), steps=2).x

    assert torch.equal(drawn(labels), drawn(right))
    assert torch.equal(drawn({"labels": labels}), drawn(right))
    data = Dataset(torch.zeros(2, 2), labels, 3, Transform())
    assert data.labels.dtype == torch.int64
    assert data.labels.tolist() == [1, 0]
    if isinstance(labels, torch.Tensor):
        x, t = torch.ones(2, 2), torch.tensor(0.5)
        assert torch.equal(model(x, t, labels), model(x, t, right))
        assert torch.equal(model(x, t, {"labels": labels}), model(x, t, right))


@pytest.mark.parametrize("kind", TYPES)
def test_the_null_condition_of_every_type(model, kind):
    labels = torch.tensor([1, 0]).to(kind)
    assert null_like(labels).tolist() == [-1, -1]
    assert drop_conditions({"labels": labels}, torch.tensor([True, False]))["labels"].tolist() == [-1, 0]
    draws = BatchNoise.draw(model.sde, (2, 2), torch.Generator().manual_seed(0))._replace(u=torch.zeros(2))
    x0 = torch.tensor([[0.5, 1.0], [-1.0, 0.2]])
    for dropout in (0.0, 0.5):
        losses = [denoising_loss(model, x0, cond, draws, cond_dropout=dropout) for cond in (labels, labels.long())]
        assert torch.equal(*losses)


def test_classifiers_take_every_type():
    classifier = NoisyClassifier(MLPClassifier((2,), 3, width=16, layers=1), VPSDE())
    draws = BatchNoise.draw(classifier.sde, (2, 2), torch.Generator().manual_seed(0))
    right = classifier_loss(classifier, torch.ones(2, 2), torch.tensor([1, 0]), draws)
    for kind in TYPES:
        assert torch.equal(classifier_loss(classifier, torch.ones(2, 2), torch.tensor([1, 0]).to(kind), draws), right)
        guided = Classifier(Denoiser(MLP((2,), width=16, layers=1), VPSDE()), classifier, torch.tensor([1, 0]).to(kind))
        assert guided.labels.tolist() == [1, 0]


@pytest.mark.parametrize(("labels", "reason"), [
    (torch.tensor([0.0, 1.0]), "labels must be integers of shape (B,); got torch.float32 of shape (2,)"),
    (torch.tensor([1j, 0]), "labels must be integers of shape (B,); got torch.complex64 of shape (2,)"),
    (torch.eye(3).long()[:2],
     "labels must be integers of shape (B,); got torch.int64 of shape (2, 3): if they are one-hot, take .argmax(1)"),
    (torch.tensor([[1], [0]]), "labels must be integers of shape (B,); got torch.int64 of shape (2, 1): flatten them"),
    (torch.tensor([1, 3]), "label 3 is out of range: allowed are 0 to 2 (are they 1-based?)"),
    (torch.tensor([-2, 0]), "label -2 is out of range: allowed are 0 to 2"),
    (torch.empty(0, dtype=torch.long), "labels must be integers of shape (B,); got torch.int64 of shape (0,)"),
    (torch.tensor([2**64 - 1, 0], dtype=torch.uint64),
     "labels of type torch.uint64 do not fit into int64: number the classes from 0"),
])  # fmt: skip
def test_what_is_no_label(model, labels, reason):
    refused(reason, Conditional, model, {"labels": labels})
    if len(labels):
        refused(reason, Dataset, torch.zeros(2, 2), labels, 3, Transform())


@pytest.mark.parametrize("kind", ["?", "u1", "i1", ">i2", "u4", "i8", "u8", "f2", "f4", ">f8"])
def test_labels_in_files(kind):
    labels, names = class_labels(np.array([1, 0, 1]).astype(kind), 3)
    assert (labels.dtype, labels.tolist(), names) == (torch.int64, [1, 0, 1], [])


@pytest.mark.parametrize("kind", ["U", "S"])
def test_names_in_files(kind):
    held = np.array(["class 10", "class 2", "class 10", "Class 1"], kind)
    labels, names = class_labels(held, 4)
    assert (labels.tolist(), names) == ([2, 1, 2, 0], ["Class 1", "class 2", "class 10"])
    assert known_labels(held[:2], 2, names).tolist() == [2, 1]
    assert known_labels(np.array([2, 2]), 2, names).tolist() == [2, 2]
    with pytest.raises(ValueError, match="'class 3' is no class: needs one of Class 1, class 2, class 10, or numbers"):
        known_labels(np.array(["class 3"], kind), 1, names)


def test_the_order_of_names():
    assert ordered(["10", "2", "1", "2", "-1", "0.5"]) == ["-1", "0.5", "1", "2", "10"]
    assert ordered(["b10", "B2", "a", "b1", "\u00e9", "10"]) == ["10", "a", "b1", "B2", "b10", "\u00e9"]


def test_a_class_by_name_or_number():
    names = ["cat", "Dog", "caf\u00e9"]
    assert [class_of(text, names) for text in ("cat", " dog", "CAT", "cafe\u0301", "2")] == [0, 1, 0, 2, 2]
    assert class_of("10", ["2", "10"]) == 1, "a name goes before a number"
    assert class_of("1", ["2", "10"]) == 1
    for text, reason in (("3", "class 3 is out of range, allowed are 0 to 2"), ("cot", "'cot' is no class: needs one "
                         "of cat, Dog, caf\u00e9, or numbers from 0 to 2, did you mean cat?")):  # fmt: skip
        refused(reason, class_of, text, names)


def test_labels_stay_as_they_are_where_they_can():
    labels = torch.tensor([1, -1])
    assert as_labels(labels) is labels
