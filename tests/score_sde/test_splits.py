"""What real items score is a distribution, and what a metric would tell is measured on spoilt ones."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from score_sde.evaluation.perturbations import PERTURBATIONS, blur, noise, shrinkage, without_a_mode, words
from score_sde.evaluation.power import RealItems, measure_power
from score_sde.metrics.metric import METRICS
from score_sde.metrics.splits import DIVISIONS, Division, Splits, rows_of
from sde.data import Dataset
from sde.data.transform import Transform


def points(n, seed, d=2):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_sizes_and_positions():
    assert Division.of(100, 80, 500) == Division(100, 80)
    assert Division.of(1000, 80, 500) == Division(500, 80)
    assert Division.of(1000, 500, 80) == Division(290, 290)
    n, m, spare = Division(30, 20).positions(25, 45, 0)
    assert (len(n), len(m), len(spare)) == (30, 20, 20)
    assert sorted(torch.cat([n, m, spare]).tolist()) == list(range(70)), "no item twice"
    assert n.tolist() != Division(30, 20).positions(25, 45, 1)[0].tolist()
    real, others = points(25, 1), points(45, 2)
    torch.testing.assert_close(rows_of(real, others, n), torch.cat([real, others])[n], rtol=0, atol=0)


def test_the_spread_is_that_of_new_draws():
    """Of the difference of two means: std sqrt(1/n + 1/m), whatever part of the items a split takes."""
    wanted = (1 / 300 + 1 / 200) ** 0.5
    found = [
        Splits.measure(lambda x, y: (x.mean() - y.mean()).item(), points(200, seed, 1), points(400, 99 - seed, 1),
                       Division(300, 200)).spread for seed in range(12)
    ]  # fmt: skip
    assert np.mean(found) == pytest.approx(wanted, rel=0.1)


def test_new_real_items_are_seldom_told():
    """About 1 in 100, whatever the metric; a set that is elsewhere is always told, on the side that it is on."""
    real, others = points(120, 1), points(400, 2)
    for name, metric in METRICS.items():
        splits = Splits.measure(metric, real, others, Division(100, 120), least=metric.least(100))
        told = [splits.compared(metric(points(100, 1000 + seed), real)) for seed in range(12)]
        assert sum(map(abs, told)) <= 2, name
        assert splits.compared(metric(points(100, 3) + 4, real)) == (-1 if metric.larger else 1), name
        assert not splits.differ


def test_sets_that_differ_themselves():
    """Of training and test items far apart a perfect model of the training items is not worse than they are."""
    real, others = points(100, 1), points(300, 2) + 0.7
    metric = METRICS["energy"]
    splits = Splits.measure(metric, real, others, Division(100, 100))
    assert splits.differ
    assert splits.compared(splits.between) == 0
    assert splits.compared(metric(points(100, 4) + 3, real)) == 1
    assert Splits((1.0, 1.0, 1.0), 1.0).compared(1.0) == 0
    assert Splits((1.0, 1.0, 1.0), 1.0).compared(1.1) == 1
    limits = Splits((1.0, 2.0, 3.0), 2.0).limits
    assert limits == pytest.approx((2 - 9.9248 * (4 / 3) ** 0.5, 2 + 9.9248 * (4 / 3) ** 0.5), rel=1e-4)


def test_spoilt_by_known_amounts():
    generator = torch.Generator().manual_seed(0)
    x = 3 + 2 * points(4000, 1, 6).view(-1, 1, 6)
    assert noise(x, 0.5, generator).var().item() == pytest.approx(4 * 1.25, rel=0.03)
    torch.testing.assert_close(shrinkage(x, 0.2, generator).mean(0), x.mean(0))
    assert (shrinkage(x, 0.2, generator).var() / x.var()).item() == pytest.approx(0.64, rel=1e-3)
    impulse = torch.zeros(1, 2, 41, dtype=torch.float64)
    impulse[0, 0, 20] = 1
    density = norm.pdf(np.arange(-20, 21), scale=2)
    np.testing.assert_allclose(blur(impulse, 2.0, generator)[0, 0], density / density.sum(), atol=1e-4)
    assert blur(impulse, 2.0, generator)[0, 1].abs().max() == 0, "channels do not mix"
    torch.testing.assert_close(blur(torch.ones(2, 1, 5, 7), 4.0, generator), torch.ones(2, 1, 5, 7))
    both = torch.cat([points(90, 1), points(30, 2) + 50])
    kept = without_a_mode(both, points(60, 3) + 50 * (torch.arange(60) % 2)[:, None], 0.25, generator)
    away = (kept.norm(dim=1) > 20).sum().item()
    assert len(kept) == 120
    # The center is one of either mode: nearly all of the small one is lost, or only of the large one.
    assert away < 10 or away > 40
    assert words({"noise": 0.1, "blur": None, "shrinkage": 0.05, "lost": 0.2}) == (
        "noise of 10 %, shrinkage by 5 %, a loss of 20 % of the items"
    )
    assert words(dict.fromkeys([*PERTURBATIONS, "lost"])) == ""


def power_of(metric, n, x, metrics=("frechet",)):
    half = len(x) // 2
    data, other = (Dataset(part.float(), None, None, Transform()) for part in (x[:half], x[half:]))
    places = (data, torch.arange(half)), (other, torch.arange(len(x) - half))
    items = RealItems(x[:half].flatten(1), x[half:].flatten(1), places, metric)
    splits = {
        name: Splits.measure(METRICS[name], items.real, items.others, Division(n, n), least=METRICS[name].least(n))
        for name in metrics
    }
    return measure_power(items, splits, Division(n, n))


def test_power_grows_with_the_items_and_is_lost_with_the_features():
    x = points(4000, 1, 8).view(-1, 1, 8)

    def all_of(z):
        return z.double().flatten(1)

    few, many = power_of(all_of, 60, x)["frechet"], power_of(all_of, 1500, x)["frechet"]
    assert few.keys() == {"noise", "blur", "shrinkage", "lost"}
    assert many["noise"] <= 0.5 < math.inf
    for name, amount in many.items():
        assert few[name] is None or amount <= few[name]
    assert many["shrinkage"] <= 0.1 < (few["shrinkage"] or 1)
    # The sign of an entry does not change as its size does.
    signs = power_of(lambda z: z.double().flatten(1).sign(), 300, x, ("energy",))["energy"]
    assert signs["shrinkage"] is None
    # Points have no neighbors that they could be blurred with.
    assert "blur" not in power_of(all_of, 60, x.flatten(1))["frechet"]
    assert DIVISIONS >= 16
