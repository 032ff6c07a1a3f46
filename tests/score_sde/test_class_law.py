"""Classes as the data have them: the law of what is drawn, and real items in the same mix."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from score_sde.evaluation.class_mix import by_the_law, matching
from score_sde.modes.compare import compare
from score_sde.modes.evaluate import evaluate
from score_sde.modes.sample import sample
from score_sde.run.class_law import draw_classes
from score_sde.run.conditions import held_out_condition
from sde.checkpoint.models import save_model
from sde.checkpoint.snapshots import stored_spec
from sde.data import Dataset
from sde.data.transform import Transform
from tests.score_sde.runs import call, untrained

COUNTS = [900, 0, 80, 20]


def test_the_law_of_what_is_drawn():
    drawn = draw_classes(COUNTS, 4, seed=3, count=4000)
    found = drawn.bincount(minlength=4).numpy()
    assert found[1] == 0
    assert chisquare(found[[0, 2, 3]], 4000 * np.array([0.9, 0.08, 0.02])).pvalue > 1e-3
    many = draw_classes([1] * 40, 40, seed=3, count=4000).bincount(minlength=40).numpy()
    assert chisquare(many).pvalue > 1e-3
    # A sample's class is its own, whatever is drawn beside it.
    assert torch.equal(drawn[:7], draw_classes(COUNTS, 4, seed=3, count=7))
    assert not torch.equal(drawn[:200], draw_classes(COUNTS, 4, seed=4, count=200))
    # Neighbors are independent: pairs have the product of their shares.
    pairs = (drawn[:-1] != 0).float() @ (drawn[1:] != 0).float() / 3999
    assert pairs == pytest.approx(0.01, abs=4 * (0.01 / 3999) ** 0.5)


@pytest.mark.parametrize("counts", [None, [1, 2], [0, 0, 0]])
def test_a_run_that_does_not_know(counts):
    with pytest.warns(UserWarning, match="does not say in what parts .* all 3 classes in equal parts"):
        assert draw_classes(counts, 3, 0, 7).tolist() == [0, 1, 2, 0, 1, 2, 0]


def labeled(counts):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return Dataset(torch.arange(len(labels)).float()[:, None], labels, len(counts), Transform())


def test_items_in_the_mix_that_was_asked_for():
    data = labeled([900, 100])
    skewed, equal = torch.tensor([0] * 9 + [1]).repeat(20), torch.arange(200) % 2
    assert by_the_law(skewed, data.labels)
    assert not by_the_law(equal, data.labels)
    assert len(matching(data, skewed)) == len(matching(data, None)) == 1000
    assert len(matching(data, torch.full((9,), -1))) == 1000, "what has no class has them all"
    found = matching(data, equal)
    assert data.labels[found].bincount().tolist() == [100, 100]
    # Spread over the set, and not its first.
    assert found[:100].max() == 899
    assert data.labels[matching(data, torch.tensor([0, 1, 1, 1] * 30))].bincount().tolist() == [33, 100]
    assert matching(data, torch.ones(60).long()).tolist() == list(range(900, 1000))
    with pytest.warns(UserWarning, match=r"have none of the classes \[1\]"):
        assert len(matching(labeled([50, 0, 50]), torch.arange(99) % 3)) == 100
    with pytest.raises(ValueError, match=r"none of the classes asked for, \[1\]"):
        matching(labeled([50, 0, 50]), torch.ones(9).long())


def test_draws_of_the_law_pass_for_it():
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS))
    passed = [by_the_law(draw_classes(COUNTS, 4, seed, 60), labels) for seed in range(100)]
    assert sum(passed) >= 95
    # The items' own parts are random too: few of them are no other mix.
    passed = [
        by_the_law(draw_classes(COUNTS, 4, seed, 100), draw_classes(COUNTS, 4, 999 - seed, 60)) for seed in range(99)
    ]
    assert sum(passed) >= 95
    assert not by_the_law(torch.arange(60) % 4, draw_classes(COUNTS, 4, 0, 60))


@pytest.fixture(scope="module")
def skewed(tmp_path_factory):
    """A run of points in the plane, of which a tenth are of class 1."""
    labels = np.arange(2000) % 10 == 0
    x = np.random.default_rng(0).normal(size=(2000, 2)) + 4 * labels[:, None]
    return untrained(tmp_path_factory.mktemp("runs") / "skewed", x.astype(np.float32), labels.astype(np.int64))


def test_the_run_keeps_the_counts(skewed):
    training, held_out = skewed.data()
    assert stored_spec(skewed.model_file)["class_counts"] == training.class_counts == skewed.class_counts
    assert sum(training.class_counts) == len(training)
    shown = held_out_condition(held_out, skewed.model(), 600)["labels"]
    assert 0.05 < shown.double().mean() < 0.16, "previews have them as the data do"


def test_evaluate_compare_and_sample_draw_the_same_classes(skewed, tmp_path):
    evaluate(skewed, steps=2, num_samples=90, seed=5, metrics="energy", subsamples=2, out=str(tmp_path / "e"))
    asked = np.load(tmp_path / "e.npz")["labels"]
    assert asked.tolist() == draw_classes(skewed.class_counts, 2, 5, 90).tolist()
    compare(skewed, samplers="ddim", nfe="3", num_samples=90, seed=5, out=str(tmp_path / "c"))
    assert "--labels data" in json.loads((tmp_path / "c.json").read_text())["rows"][0]["command"]
    sample(skewed, steps=2, num_samples=90, seed=5, labels="data", out=str(tmp_path / "s"))
    assert np.load(tmp_path / "s.npz")["labels"].tolist() == asked.tolist()
    np.testing.assert_array_equal(np.load(tmp_path / "s.npz")["x"], np.load(tmp_path / "e.npz")["x"])


def test_real_items_of_the_classes_told(skewed, tmp_path, capsys):
    """Real items of both classes in equal parts, as samples: told from the data as they are, and not from the mix."""
    x, cond = skewed.data()[0].batch(torch.arange(1000))
    ones = (cond["labels"] == 1).nonzero().squeeze(1)
    equal = torch.cat([(cond["labels"] == 0).nonzero().squeeze(1)[: len(ones)], ones])
    np.savez(tmp_path / "equal.npz", x=x[equal], labels=cond["labels"][equal])
    evaluate(skewed, samples_file=str(tmp_path / "equal.npz"), metrics="energy", subsamples=2, out=str(tmp_path / "m"))
    assert "real items are in the parts of the classes asked for" in capsys.readouterr().out
    record = json.loads((tmp_path / "m.json").read_text())
    few = int((skewed.data()[1].labels == 1).sum())
    assert record["items"]["real"] == 2 * few
    assert record["values"]["energy"]["reading"].startswith("not told from real items; it would tell")
    np.savez(tmp_path / "none.npz", x=x[equal])
    evaluate(skewed, samples_file=str(tmp_path / "none.npz"), metrics="energy", subsamples=2, out=str(tmp_path / "n"))
    assert json.loads((tmp_path / "n.json").read_text())["values"]["energy"]["reading"] == "worse than real items"


def test_runs_of_earlier_versions(skewed, tmp_path, capsys):
    """Without counts in the model file the data tell, and without data each class is drawn alike."""
    spec = stored_spec(skewed.model_file)
    spec.pop("class_counts")
    old = untrained(tmp_path / "old", np.zeros((80, 2), np.float32) + np.arange(80)[:, None], np.arange(80) % 2)
    save_model(old.model_file, "denoiser", spec, skewed.model().state_dict())
    vars(old).pop("_spec", None)
    assert old.class_counts == old.data()[0].class_counts
    (tmp_path / "old" / "data.npz").unlink()
    with pytest.warns(UserWarning, match="in equal parts"):
        assert call(capsys, "--mode", "sample", "--workdir", tmp_path / "old", "--steps", 1, "--num_samples", 4,
                    "--labels", "data", "--out", tmp_path / "s")[0] == 0  # fmt: skip
    assert np.load(tmp_path / "s.npz")["labels"].tolist() == [0, 1, 0, 1]
