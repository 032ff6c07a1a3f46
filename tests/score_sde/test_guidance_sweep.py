"""Accuracy against diversity over the scale: closed forms on exact models, and the command on small trained runs."""

import json
import math
import shutil
from functools import cached_property
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from score_sde.config.config import config_path, read_config, resolve
from score_sde.modes import guidance_sweep as module
from score_sde.modes.guidance_sweep import guidance_sweep
from score_sde.run.folder import Run
from sde import VPSDE, ScoreModel
from sde.data import Dataset
from sde.data.transform import Transform
from tests.oracles.exact import Gaussian
from tests.score_sde.runs import call, untrained

CLASS, NULL = 0.5, 0.6
"""Standard deviations of a class and of the unconditional branch."""


class Pair(ScoreModel):
    """Class y is N(m_y, CLASS^2 I) in the plane, m = (-0.6, 0) and (0.6, 0); the null condition is N(0, NULL^2 I)."""

    num_classes, conditions, null_trained, event_shape = 2, {}, True, (2,)
    means = torch.tensor([[-0.6, 0.0], [0.6, 0.0]])

    def __init__(self):
        super().__init__(VPSDE())
        self.register_buffer("like", torch.zeros(1))
        self.parts = [
            *(Gaussian(self.sde, mean, CLASS) for mean in self.means),
            Gaussian(self.sde, torch.zeros(2), NULL),
        ]

    def forward(self, x, t, cond=None):
        labels = torch.full((len(x),), -1) if cond is None else cond["labels"]
        labels = torch.where(labels < 0, 2, labels)
        each = torch.stack([part(x, t) for part in self.parts])
        return each[labels, torch.arange(len(x))]


class PairRun(Run):
    """A run of the exact model, whose held-out items are draws of the classes."""

    def model(self):
        return Pair()

    @cached_property
    def items(self):
        labels = torch.arange(4000) % 2
        x = Pair.means[labels] + CLASS * torch.randn(4000, 2, generator=torch.Generator().manual_seed(1))
        data = Dataset(x, labels, 2, Transform())
        return data, data


@pytest.fixture
def exact(tmp_path, monkeypatch):
    judge = SimpleNamespace(classes=lambda x: (x[:, 0] > 0).long(), unfit=lambda data: "")
    monkeypatch.setattr(module, "evaluation_classifier", lambda run, data: judge)
    return PairRun(tmp_path, resolve(read_config(config_path("points")), []), torch.device("cpu"))


def test_closed_forms(exact):
    """The flow guided at scale w brings distances to (v_a / v_b)^((w - 1) / 2) of the class's, with v_a and v_b the
    variances of class and null, and the ratio that of t_min over that of the start; the best judge is right about
    Phi(m / a) of the class and half of what has no class."""
    scales = (0.0, 1.0, 2.0, 4.0)
    rows = guidance_sweep(exact, guidance_scale=scales, num_samples=600, labels="0,1")["rows"]
    assert [row["scale"] for row in rows] == list(scales)
    ends = torch.tensor([1e-3, 1.0], dtype=torch.float64)
    v_a, v_b = (
        (exact.model().sde.alpha(ends) * std) ** 2 + exact.model().sde.sigma(ends) ** 2 for std in (CLASS, NULL)
    )
    ratio = (v_a / v_b).sqrt()
    for row in rows:
        expected = (ratio[0] / ratio[1]).item() ** (row["scale"] - 1)
        # The held-out items' own distance is known to 1 %.
        assert row["diversity"] == pytest.approx(expected, abs=4 * math.hypot(row["diversity_stderr"], 0.01 * expected))
        assert 0.01 < row["diversity_stderr"] / expected < 0.04
    assert all(a["diversity"] > b["diversity"] for a, b in pairwise(rows))
    for row, expected in zip(rows, (0.5, 0.5 * math.erfc(-0.6 / CLASS / math.sqrt(2))), strict=False):
        assert row["accuracy"] == pytest.approx(expected, abs=4 * row["accuracy_stderr"])
        assert row["accuracy_stderr"] == pytest.approx(math.sqrt(expected * (1 - expected) / 600), rel=0.15)
    assert rows[3]["accuracy"] > rows[2]["accuracy"] > rows[1]["accuracy"]


def sweep(capsys, folder, *options):
    return call(capsys, "--mode", "guidance_sweep", "--workdir", folder, "--sampler", "ddim", "--steps", 3,
                "--num_samples", 20, *options)  # fmt: skip


@pytest.mark.rendered
def test_both_kinds_and_their_files(trained, tmp_path, capsys):
    status, result, _ = sweep(capsys, trained, "--guidance_scale", "0,1,3", "--out", tmp_path / "s")
    assert status == 0
    assert [(row["guidance"], row["scale"]) for row in result["rows"]] == [
        (kind, scale) for kind in ("classifier-free", "classifier") for scale in (0, 1, 3)
    ]
    assert [row["nfe"] for row in result["rows"]] == [4, 4, 8, 4, 4, 4], "counted"
    for picture in ("s.png", "s-strip.png"):
        with Image.open(tmp_path / picture) as image:
            image.load()
    assert result["strip"] == str(tmp_path / "s-strip.png")
    kept = json.loads((tmp_path / "s.json").read_text())
    assert kept["rows"] == result["rows"]
    unconditional = [row for row in result["rows"] if row["scale"] == 0]
    for key in ("accuracy", "diversity"):
        assert unconditional[0][key] == pytest.approx(unconditional[1][key]), "the same noise, unguided by either"
    other = sweep(capsys, trained, "--guidance_scale", "1,2", "--classifier_scale", "0,1,5", "--seed", 1,
                  "--labels", "1")[1]  # fmt: skip
    assert [row["scale"] for row in other["rows"]] == [1, 2, 0, 1, 5]
    assert other["picture"] == str(trained / "samples" / "000001-guidance-sweep.png")
    assert other["settings"] == {"sampler": "ddim", "steps": "3", "num_samples": "20", "labels": "1", "seed": "1",
                                 "guidance_scale": "1,2", "classifier_scale": "0,1,5"}  # fmt: skip
    assert json.loads((trained / "samples" / "000001-guidance-sweep.json").read_text())["settings"] == other["settings"]
    assert other["classes"] == [1]


def test_scales_are_those_of_mode_sample(trained, tmp_path, capsys, monkeypatch):
    """The sweep draws what --mode sample draws at the same scales."""
    seen = []
    judge = SimpleNamespace(
        classes=lambda x: seen.append(x) or torch.zeros(len(x), dtype=torch.long), unfit=lambda data: ""
    )
    monkeypatch.setattr(module, "evaluation_classifier", lambda run, data: judge)
    assert sweep(capsys, trained, "--guidance_scale", "0.5,2", "--classifier_scale", "0,3")[0] == 0
    flags = [["--guidance_scale", "0.5"], ["--guidance_scale", "2"], ["--guidance_scale", "0"],
             ["--guidance_scale", "0", "--classifier_scale", "3"]]  # fmt: skip
    for x, flag in zip(seen[1:], flags, strict=True):
        call(capsys, "--mode", "sample", "--workdir", trained, "--sampler", "ddim", "--steps", 3, "--num_samples", 20,
             "--labels", "data", "--out", tmp_path / "s", *flag)  # fmt: skip
        np.testing.assert_array_equal(np.load(tmp_path / "s.npz")["x"], x.numpy())


MISTAKES = [
    (["--guidance_scale", "2"], "--guidance_scale=2: a sweep needs several scales, as in 0,1,2,4"),
    (["--classifier_scale", "1"], "--classifier_scale=1: a sweep needs several scales"),
    (["--guidance_scale", "1,2,1"], "guidance_scale=1,2,1: has a number twice"),
    (["--guidance_scale", "1,,2"], "guidance_scale=1,,2: needs a number, or several with commas between them"),
    (["--guidance_scale", "1,inf"], "needs a number, or several"),
    (["--labels", "none"], "--labels=none: a sweep asks for classes"),
    (["--num_samples", "1", "--labels", "1"], "class 1 has one sample, and diversity needs two that differ: no class "
     "is left to measure; take more --num_samples"),
    (["--labels", "5"], "class 5 is out of range, allowed are 0 to 1"),
    (["--autoguidance", "ema/0.5.safetensors"], "--autoguidance is for --mode"),
    (["--config.data.toy=moons"], "only config.sampler can be changed"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "words"), MISTAKES, ids=[" ".join(options) for options, _ in MISTAKES])
def test_mistakes(trained, capsys, options, words):
    before = sorted(trained.rglob("*"))
    status, result, error = sweep(capsys, trained, *options)
    assert (status, result) == (2, None)
    assert words in error
    assert len(error.strip().splitlines()) == 1
    assert sorted(trained.rglob("*")) == before


def test_classes_that_are_left_out():
    """With one sample, with no held-out item, one, or equal ones; the others are measured."""
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 4])
    x = torch.where(labels[:, None] == 1, 1.0, torch.randn(9, 2, generator=torch.Generator().manual_seed(0)))
    data = Dataset(x, labels, 5, Transform())
    kept, sentences = module.measurable(data, torch.tensor([0, 1, 2, 3, 0, 1, 4, 3, 4]))
    assert kept.tolist() == [0, -1, -1, -1, 0, -1, -1, -1, -1]
    reasons = ("held-out items that are all equal", "one sample", "no held-out item", "one held-out item")
    assert sentences == [
        f"class {label} has {why}, and diversity needs two that differ" for label, why in enumerate(reasons, 1)
    ]
    with pytest.raises(ValueError, match=r"class 3 has no held-out item.*no class is left to measure"):
        module.measurable(data, torch.tensor([3, 3]))


def test_a_rare_class_stops_nobody(exact, monkeypatch, capsys):
    monkeypatch.setattr(PairRun, "class_counts", [990, 10])
    found = guidance_sweep(exact, guidance_scale=(0.0, 1.0), num_samples=60, seed=2)
    assert found["classes"] == [0]
    assert found["left_out"] == ["class 1 has one sample, and diversity needs two that differ"]
    assert "  left out: class 1 has one sample" in capsys.readouterr().out
    assert [row["scale"] for row in found["rows"]] == [0.0, 1.0]


def test_runs_that_cannot_be_swept(tmp_path, capsys):
    """Without labels, without a model or classifier of classes, without a trained unconditional branch."""
    labels = np.arange(200) % 2
    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32) + 5 * labels[:, None]
    runs = {
        "unlabeled": (None, [], "has no labels here: a sweep asks for classes"),
        "unconditional": (labels, ["--config.model.conditional=False"], "the model is unconditional and there is no"),
        "full": (labels, ["--config.training.cond_dropout=0.0"], "guidance scale 0.0 needs the unconditional branch, "
                 "which this model never trained"),
    }  # fmt: skip
    for name, (classes, options, words) in runs.items():
        untrained(tmp_path / name, x, classes, *options)
        status, _, error = sweep(capsys, tmp_path / name)
        assert status == 2
        assert words in error
    for name, flags, words in (
        ("full", ["--guidance_scale", "2"], "guidance scale 2.0 needs the unconditional branch"),
        ("full", ["--labels", "none"], "--labels=none: this model never trained its unconditional branch"),
        ("unconditional", ["--labels", "0,1"], "--labels=0,1: the model is unconditional and there is no classifier"),
        ("unconditional", ["--guidance_scale", "2"], "--guidance_scale=2: the model is unconditional"),
    ):
        status, _, error = call(capsys, "--mode", "sample", "--workdir", tmp_path / name, *flags)
        assert status == 2
        assert words in error
    assert call(capsys, "--mode", "train_classifier", "--workdir", tmp_path / "unconditional",
                "--config.classifier.steps=2")[0] == 0  # fmt: skip
    status, result, _ = sweep(capsys, tmp_path / "unconditional", "--guidance_scale", "0,2")
    assert status == 0
    assert [(row["guidance"], row["scale"]) for row in result["rows"]] == [("classifier", 0), ("classifier", 2)]


def test_a_classifier_that_is_not_there(trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "classifier.safetensors").unlink()
    status, _, error = sweep(capsys, tmp_path / "run", "--classifier_scale", "0,1")
    assert status == 2
    assert "classifier.safetensors does not exist: train it with" in error
    assert {row["guidance"] for row in sweep(capsys, tmp_path / "run", "--guidance_scale", "0,2")[1]["rows"]} == {
        "classifier-free"
    }
