"""What every metric of METRICS must do; registering one is enough to have it tested."""

import json

import pytest
import torch

from score_sde.metrics import distances
from score_sde.metrics.bootstrap import subsampled
from score_sde.metrics.estimate import Estimate
from score_sde.metrics.metric import METRICS
from score_sde.metrics.neighbors import Memorization, near_duplicates
from score_sde.metrics.proportion import share
from score_sde.metrics.splits import Division, Splits
from tests.oracles.coverage import ideal_coverage

IDEALS = dict.fromkeys(("frechet", "kernel", "energy", "sliced_wasserstein"), 0.0)
IDEALS |= {"density": 1.0, "two_sample_linear": 0.5, "two_sample_neighbors": 0.5, "coverage": ideal_coverage(120, 100)}
"""The mean of each metric where both sets have one law, of 120 and 100 items, or for a biased one its limit; none where
that depends on the law."""
ONE_SIDED = ("precision", "recall", "density", "coverage")
"""Metrics that are not the same with the two sets exchanged."""
BY_DIRECTIONS = ("sliced_wasserstein",)
"""Metrics that are not the same for features that an orthogonal map turned."""


def points(n, seed, d=3, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def name_of(metric):
    return next(name for name, other in METRICS.items() if other is metric)


@pytest.fixture(params=METRICS)
def metric(request):
    return METRICS[request.param]


def test_equal_laws_have_the_ideal_value(metric):
    within = 0
    for seed in range(8):
        x, y = points(120, 2 * seed), points(100, 2 * seed + 1)
        found = metric.estimate(x, y, subsamples=20)
        assert metric.limits[0] <= found.low < found.high <= metric.limits[1]
        assert found.value == metric(x, y)
        ideal = IDEALS.get(name_of(metric))
        within += ideal is None or found.low <= ideal <= found.high
    assert within >= 6


def test_other_laws_are_told(metric):
    real = metric.estimate(points(120, 1), points(100, 2), subsamples=30)
    found = metric.estimate(points(120, 1, shift=5.0), points(100, 2), subsamples=30)
    assert found.compared(real) == (-1 if metric.larger else 1)
    assert real.compared(found) == -found.compared(real)
    if found.p_value is not None:
        assert found.p_value < 1e-6 < real.p_value


def test_the_order_of_items_does_not_matter(metric):
    x, y = points(90, 1), points(80, 2, shift=0.3)
    value = metric(x, y)
    assert metric(x.flip(0), y[torch.randperm(80, generator=torch.Generator().manual_seed(3))]) == pytest.approx(
        value, rel=1e-9, abs=1e-12
    )
    if name_of(metric) not in ONE_SIDED:
        assert metric(y, x) == pytest.approx(value, rel=1e-9, abs=1e-12)
    else:
        assert metric(y, x) != value


def test_orthogonal_maps(metric):
    x, y = points(90, 1), points(80, 2, shift=0.3) * torch.tensor([1.0, 2.0, 0.5])
    turn = torch.linalg.qr(points(3, 5)).Q
    change = abs(metric(x @ turn, y @ turn) - metric(x, y))
    assert change > 1e-9 if name_of(metric) in BY_DIRECTIONS else change < 1e-9


def test_blocks_do_not_matter(metric, monkeypatch):
    x, y = points(70, 1), points(80, 2, shift=0.3)
    value = metric(x, y)
    monkeypatch.setattr(distances, "NUMBERS_AT_ONCE", 7 * 80)
    assert metric(x, y) == pytest.approx(value, rel=1e-12)


def test_intervals_are_those_of_the_seed(metric):
    x, y = points(60, 1), points(60, 2)
    assert metric.estimate(x, y, 10, 3) == metric.estimate(x, y, 10, 3)


def test_too_few_items_are_refused(metric):
    with pytest.raises(ValueError, match="needs at least 50"):
        metric.estimate(points(49, 1), points(100, 2))
    wide = points(100, 1, d=100), points(100, 2, d=100)
    if metric is METRICS["frechet"]:
        with pytest.raises(ValueError, match=r"are too few for 100 features, .* 101"):
            metric.estimate(*wide)


VARIED = points(60, 1, d=3)
DEGENERATE = {
    "all equal": (torch.ones(60, 3).double(), torch.ones(70, 3).double()),
    "equal samples": (torch.ones(60, 3).double(), points(70, 2)),
    "equal items": (points(60, 1), torch.ones(70, 3).double()),
    "equal, elsewhere": (torch.ones(60, 3).double(), torch.zeros(70, 3).double()),
    "the same set": (VARIED, VARIED),
    "one feature": (points(60, 1, d=1), points(70, 2, d=1)),
    "one feature, equal": (torch.full((60, 1), 1e6).double(), torch.full((70, 1), 1e6).double()),
    "two values": (points(60, 1).sign(), points(70, 2).sign()),
    "a feature that is constant": (torch.cat([VARIED, 7 + 0 * VARIED], 1), torch.cat([points(70, 2)[:, :3]] * 2, 1)),
    "each twice": (points(30, 1).repeat(2, 1), points(35, 2).repeat(2, 1)),
    "tiny": (1e-160 * points(60, 1), 1e-160 * points(70, 2)),
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_sets_have_numbers(metric, case):
    """No NaN in a value, an interval or a verdict; where the sets are equal they are not told apart."""
    x, y = DEGENERATE[case]
    found = metric.estimate(x, y, subsamples=4)
    numbers = [found.value, found.corrected, found.low, found.high]
    assert torch.tensor(numbers).isfinite().all(), numbers
    assert found.low <= found.high
    splits = Splits.measure(metric, y, y.flip(0), Division(40, 50), least=metric.least(40), count=4)
    assert torch.tensor([*splits.values, *splits.limits, splits.mean, splits.spread]).isfinite().all()
    json.dumps(splits.record(), allow_nan=False)
    told = splits.compared(metric(x[:40], y[:50]))
    if case in ("all equal", "one feature, equal"):
        assert told == 0
    if case == "equal, elsewhere":
        assert told == (-1 if metric.larger else 1)


@pytest.mark.parametrize("case", DEGENERATE)
def test_nearness_of_degenerate_sets(case):
    x, y = DEGENERATE[case]
    memorization = Memorization.from_sets(x, y, torch.cat([y, y]), 4)
    for found in (memorization.nearer, memorization.close, near_duplicates(x, y, 4)):
        assert 0 <= found.low <= found.value <= found.high <= 1


def test_halves_of_a_mean_have_its_variance_and_bias():
    x, y = points(101, 1, d=1), points(60, 2, d=1)
    exact = (x.var() / 101 + y.var() / 60).sqrt().item()
    found = subsampled(lambda a, b: (a.mean() - b.mean()).item(), x, y, subsamples=2000)
    assert (found.high - found.low) / (2 * 1.959964) == pytest.approx(exact, rel=0.05)
    assert found.corrected == found.value == (x.mean() - y.mean()).item()
    biased = subsampled(lambda a, b: a.var(correction=0).item(), x, y, subsamples=4000, biased=True)
    assert biased.corrected - biased.value == pytest.approx(x.var().item() / 101, rel=0.2)
    part = subsampled(
        lambda a, b: (a.mean() - b.mean()).item(), points(9000, 1, d=1), points(9000, 2, d=1), subsamples=500
    )
    assert part.high - part.low == pytest.approx(2 * 1.96 * (2 / 9000) ** 0.5, rel=0.1)
    certain = subsampled(lambda a, b: 1.0, x, y, limits=(0.0, 1.0))
    assert (certain.low, certain.high) == (share(60, 60).low, 1.0)
    # 0 of all items, and above it for one half in 16: the value itself is in its interval.
    few = {3.0, 5.0, 8.0, 9.0}
    rare = subsampled(lambda a, b: float(len(a) == 50 and few <= {*a[:, 0].tolist()}), torch.arange(100.0)[:, None], y,
                      subsamples=200, limits=(0.0, 1.0))  # fmt: skip
    assert rare.low == rare.value == 0 < rare.high
    with pytest.raises(ValueError, match="subsamples = 1"):
        subsampled(lambda a, b: 0.0, x, y, subsamples=1)


def test_comparing_estimates():
    low, high = Estimate(1.0, 1.0, 0.5, 1.5), Estimate(2.0, 2.0, 1.8, 2.2)
    assert (low.compared(high), high.compared(low), low.compared(low)) == (-1, 1, 0)
    # An interval that reaches 0 is not above another that does, however far below 0 the other's corrected value is.
    assert Estimate(1.3, 1.0, 0.0, 3.0).compared(Estimate(0.1, -0.3, 0.0, 0.2)) == 0
    # The intervals overlap, and yet the difference has one above 0.
    assert Estimate(1.0, 1.0, 0.5, 1.5).compared(Estimate(1.8, 1.8, 1.3, 2.3)) == -1
