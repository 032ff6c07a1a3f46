"""Names of classes in a run: kept with the model, taken by --labels, their numbers kept where the order moves."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from score_sde.run.labels import read_classes
from score_sde.run.trained import as_trained
from score_sde.training.spec import denoiser_spec
from sde.data import Dataset
from sde.data.transform import Transform
from tests.score_sde.runs import call, untrained

NAMES = ["cat", "Dog", "9", "10"]
ORDER = ["9", "10", "cat", "Dog"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    x = np.random.default_rng(0).normal(size=(80, 2))
    return untrained(tmp_path_factory.mktemp("named") / "run", x, np.array(NAMES * 20))


@pytest.mark.parametrize(("text", "numbers"), [
    ("cat", [2, 2, 2, 2]),
    ("DOG,1", [3, 1, 3, 1]),
    ("10, cat", [1, 2, 1, 2]),
    ("9", [0, 0, 0, 0]),
])  # fmt: skip
def test_labels_by_name(run, capsys, text, numbers):
    assert run.class_names == tuple(ORDER)
    assert json.loads((run.folder / "classes.json").read_text()) == {str(i): name for i, name in enumerate(ORDER)}
    status, last, _ = call(capsys, "--mode", "sample", "--workdir", run.folder, "--labels", text, "--num_samples", 4,
                           "--steps", 2, "--guidance_scale", 2, "--negative_labels", "Dog")  # fmt: skip
    assert status == 0
    with np.load(last["numbers"]) as arrays:
        assert arrays["labels"].tolist() == numbers


@pytest.mark.parametrize(("text", "reason"), [
    ("cot", "--labels=cot: 'cot' is no class: needs one of 9, 10, cat, Dog, or numbers from 0 to 3, did you mean cat?"),
    ("4", "--labels=4: class 4 is out of range, allowed are 0 to 3"),
])  # fmt: skip
def test_what_is_no_class(run, capsys, text, reason):
    status, _, error = call(capsys, "--mode", "sample", "--workdir", run.folder, "--labels", text)
    assert (status, error.strip().splitlines()[-1]) == (2, f"error: {reason}")


def test_a_name_that_is_another_number_is_said(capsys):
    assert read_classes("10,0", 2, 4, names=ORDER).tolist() == [1, 0]
    assert capsys.readouterr().out == "--labels=10,0: 10 is taken for the name of class 1\n"
    assert read_classes("a,b", 1, 2, names=["x", "a,b"]).tolist() == [1]


@pytest.mark.parametrize("held", ["names", "numbers"])
def test_labels_of_a_file_of_items(run, capsys, tmp_path, held):
    x = np.zeros((2, 2))
    np.savez(tmp_path / "x.npz", x=x, labels=np.array(["Dog", "cat"]) if held == "names" else np.array([3, 2]))
    status, last, _ = call(capsys, "--mode", "edit", "--workdir", run.folder, "--input", tmp_path / "x.npz",
                           "--steps", 2, "--labels", "data")  # fmt: skip
    assert status == 0
    with np.load(last["numbers"]) as arrays:
        assert arrays["labels"].tolist() == [3, 2]


def parts(names, labels, transform=None):
    x = torch.randn(len(labels), 2, generator=torch.Generator().manual_seed(0))
    data = Dataset(x, torch.tensor(labels), len(names), transform or Transform(), about={"class_names": names})
    return data, replace(data)


def test_classes_keep_the_numbers_of_the_training():
    spec = {"num_classes": 3, "about": {"class_names": ["b", "a", "c"]}}
    for part in as_trained(parts(["a", "c"], [0, 1, 0]), spec):
        assert (part.labels.tolist(), part.num_classes) == ([1, 2, 1], 3)
        assert part.about["class_names"] == ["b", "a", "c"]
    # Other names are another data set, which is for others to refuse.
    assert as_trained(parts(["a", "d"], [0, 1, 0]), spec)[0].labels.tolist() == [0, 1, 0]
    # Up to 0.2 names were sorted as text, and not stored.
    old = as_trained(parts(["1", "2", "10"], [0, 1, 2]), {"num_classes": 3})[0]
    assert (old.labels.tolist(), old.about["class_names"]) == ([0, 2, 1], ["1", "10", "2"])


def test_runs_whose_transform_is_that_of_all_items_keep_it(run):
    train, held_out = run.data()
    everything = torch.cat([train.items, held_out.items])
    own = Transform.standardize(train.items)
    of_all = Transform.standardize(everything)
    assert own.digest == train.transform.digest != of_all.digest
    spec = denoiser_spec(run.config, replace(train, transform=of_all))
    kept = as_trained((train, held_out), spec)
    assert [part.transform.shift for part in kept] == [tuple(spec["transform"]["shift"])] * 2
    other = replace(train, transform=Transform(of_all.shift, (2 * of_all.scale[0], of_all.scale[1])))
    assert as_trained((train, held_out), denoiser_spec(run.config, other))[0].transform == own
