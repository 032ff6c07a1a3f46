"""Who is recommended, and the errors of distances by the jackknife."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from score_sde.comparison.pareto import REACH, front, jackknife_error, left_out, recommend, tied
from score_sde.comparison.reference import MAX_COMPONENTS, Reference
from score_sde.evaluation.features import extractor
from score_sde.kinds import kind_of
from score_sde.metrics.frechet import frechet_distance
from sde.data import Dataset
from sde.data.transform import Transform
from tests.oracles.domination import dominated


@pytest.mark.parametrize("seed", range(40))
def test_dominated_ones_are_never_recommended(seed):
    """Few values, so that there are many ties."""
    draw = np.random.default_rng(seed)
    rows = [
        {"nfe": int(draw.integers(1, 6)), "seconds": int(draw.integers(1, 6)), "behind": int(draw.integers(0, 5)),
         "behind_stderr": float(draw.uniform(0, 3))} for _ in range(12)
    ]  # fmt: skip
    for name in ("nfe", "seconds"):
        marks = front([(row[name], row["behind"]) for row in rows])
        assert marks == [not dominated(row, rows, name) for row in rows]
        for row, mark in zip(rows, marks, strict=True):
            row[f"front_{name}"] = mark
    for row, tie in zip(rows, tied(rows), strict=True):
        row["tied"] = tie
    chosen = rows[recommend(rows)]
    assert not dominated(chosen, rows, "nfe")
    assert chosen["tied"]
    near = [row for row in rows if row["behind"] <= REACH * row["behind_stderr"]]
    assert all(row["tied"] for row in near)
    assert chosen["nfe"] == min(row["nfe"] for row in rows if row["tied"]) <= min(row["nfe"] for row in near)


def row(calls, seconds, behind, stderr):
    return {"nfe": calls, "seconds": seconds, "behind": behind, "behind_stderr": stderr}


@pytest.mark.parametrize(("rows", "chosen", "ties"), [
    # The cheapest of those that chance alone may separate from the best, by 2.13 standard errors of 16 groups.
    ([row(5, 5, 0.5, 0.2), row(10, 10, 0.2, 0.1), row(20, 20, 0.1, 0.1), row(50, 50, 0.0, 0.0)], 1, 3),
    ([row(5, 5, 0.5, 0.24), row(10, 10, 0.2, 0.1), row(20, 20, 0.1, 0.1), row(50, 50, 0.0, 0.0)], 0, 4),
    ([row(5, 5, 0.5, 0.2), row(10, 10, 0.2, 0.05), row(20, 20, 0.1, 0.04), row(50, 50, 0.0, 0.0)], 3, 1),
    # Within its error, but beaten by the second at the same calls.
    ([row(10, 10, 0.3, 9.0), row(10, 9, 0.2, 0.05), row(20, 20, 0.0, 0.0)], 1, 3),
    ([row(10, 10, 0.3, 9.0), row(10, 9, 0.4, 0.05), row(9, 9, 0.4, 0.05), row(20, 20, 0.0, 0.0)], 0, 2),
    # Calls are what is cheap, however long they took.
    ([row(10, 30, 0.2, 0.3), row(12, 12, 0.1, 0.3), row(20, 20, 0.0, 0.0)], 0, 3),
])  # fmt: skip
def test_what_is_recommended(rows, chosen, ties):
    for name in ("nfe", "seconds"):
        for its, mark in zip(rows, front([(its[name], its["behind"]) for its in rows]), strict=True):
            its[f"front_{name}"] = mark
    for its, tie in zip(rows, tied(rows), strict=True):
        its["tied"] = tie
    assert sum(tied(rows)) == ties
    assert recommend(rows) == chosen


def test_the_jackknife_of_a_mean_is_the_usual_error(generator):
    x = torch.randn(16, 3, dtype=torch.float64, generator=generator)
    found = left_out(lambda part: part[:, 0].mean().item(), x)
    assert jackknife_error(found) == pytest.approx(x[:, 0].std().item() / 4, rel=1e-12)
    x = torch.randn(160, 1, dtype=torch.float64, generator=generator)
    groups = x.view(16, 10).mean(1)
    assert jackknife_error(left_out(lambda part: part.mean().item(), x)) == pytest.approx(groups.std().item() / 4)


def test_the_jackknife_of_distances(generator):
    """Its error is how much the distance differs from one set of samples to the next; of two that move alike, the
    difference has none."""
    data = torch.randn(400, 2, dtype=torch.float64, generator=generator) * 1.3
    values, errors = [], []
    for _ in range(60):
        x = torch.randn(96, 2, dtype=torch.float64, generator=generator)
        values.append(frechet_distance(x, data))
        errors.append(jackknife_error(left_out(lambda part: frechet_distance(part, data), x)))
    assert 0.75 < np.mean(errors) / np.std(values) < 1.35
    one, other = (left_out(lambda part: part.square().mean().item(), z) for z in (x, x + 0.0))
    assert jackknife_error(one - other) == 0


def dataset(x, labels=None, classes=None):
    return Dataset(x.float(), labels, classes, Transform((0.5,), (2.0,)))


def measured(training, held_out, metrics=("frechet",), **options):
    run = SimpleNamespace(device=torch.device("cpu"), kind=kind_of(training.event_shape))
    return Reference(training, held_out, extractor(run, "data", training), metrics, **{"samples": 128} | options)


def test_distances_on_principal_components(generator):
    """Of data in a subspace all is kept, and a Frechet distance does not ask how they are turned."""
    basis = torch.linalg.qr(torch.randn(90, 8, generator=generator)).Q.T
    training, held_out, x = (torch.randn(300, 8, generator=generator) * (1 + i) @ basis for i in range(3))
    found = measured(dataset(training), dataset(held_out))
    assert (found.dim, found.width) == (90, MAX_COMPONENTS)
    encoded = [((z - 0.5) / 2).double() for z in (x, held_out)]
    assert found.measure("frechet", found.features(x)) == pytest.approx(frechet_distance(*encoded), rel=1e-4)
    assert found.measure("frechet", found.items) == pytest.approx(0, abs=1e-9)
    assert measured(dataset(training), dataset(held_out[:100])).width == 25
    with pytest.raises(ValueError, match=r"--num_samples=127: the Frechet distance of 64 features needs at least 128"):
        measured(dataset(training), dataset(held_out), samples=127).check()
    found.check()
    for n, words in ((49, "--num_samples=49: the coverage of 10 features needs at least 50 samples"),
                     (60, "--metrics=coverage: the coverage needs 50 held-out items, of 40")):  # fmt: skip
        few = measured(dataset(training), dataset(held_out[:40]), ("frechet", "coverage"), samples=n)
        with pytest.raises(ValueError, match=words):
            few.check()


def test_items_of_the_classes_asked_for(generator):
    labels = torch.arange(120) % 3
    x = torch.randn(120, 2, generator=generator) + labels[:, None]
    data = dataset(x, labels, 3)
    found = measured(data, data, labels=torch.tensor([2, 0, 2]).repeat(20), samples=30)
    assert len(found.items) == len(found.known) == 60, "40 of class 2, and half as many of class 0"
    splits = found.real["frechet"]
    assert splits.mean > 0 < splits.spread
    assert len(measured(data, data, labels=torch.arange(90) % 3).items) == 120
    with pytest.raises(ValueError, match="3 held-out items"):
        measured(data, dataset(x[:10], labels[:10], 3), labels=torch.full((30,), 2))
