"""Kernel, sliced and neighbor metrics, tests and shares against formulas written out, and known answers."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from benchmarks.coverage import energy_1d, gaussian, line, polynomial_mmd
from score_sde.metrics.kernel import kernel_distance
from score_sde.metrics.neighbors import (
    Memorization,
    coverage,
    density,
    near_duplicates,
    precision,
    recall,
    share_nearer,
)
from score_sde.metrics.proportion import mean_share, share
from score_sde.metrics.sliced import orthonormal, sliced_wasserstein, wasserstein_1d
from score_sde.metrics.two_sample import two_sample_test
from tests.oracles.coverage import ideal_coverage


def points(n, seed, d=2, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


KERNELS = {"polynomial": lambda a, b: (a @ b / len(a) + 1) ** 3, "energy": lambda a, b: -(a - b).norm()}


@pytest.mark.parametrize("name", KERNELS)
def test_kernel_distance_is_the_sum_over_pairs(name):
    x, y, k = points(9, 1, 3), points(7, 2, 3, 0.5), KERNELS[name]
    own = [
        sum(k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j) / (len(z) * (len(z) - 1))
        for z in (x, y)
    ]
    expected = sum(own) - 2 * sum(k(a, b) for a in x for b in y) / 63
    assert kernel_distance(x, y, name) == pytest.approx(expected.item(), rel=1e-9)


def test_energy_distance_keeps_its_digits_far_from_the_origin():
    x, y = points(60, 1, 4), points(50, 2, 4, 0.5)
    assert kernel_distance(x + 1e6, y + 1e6, "energy") == pytest.approx(kernel_distance(x, y, "energy"), rel=1e-8)


def test_kernel_distance_has_the_mean_of_the_laws():
    first, second = gaussian(3, 5), gaussian(3, 6, shift=0.6, spread=1.1)
    values = [
        kernel_distance(first.draw(60, g), second.draw(40, g)) for g in map(torch.Generator().manual_seed, range(300))
    ]
    assert np.mean(values) == pytest.approx(polynomial_mmd(first, second), abs=3 * np.std(values) / 300**0.5)
    one, two = line(0.0, 1.0), line(0.4, 1.3)
    values = [
        kernel_distance(one.draw(60, g), two.draw(40, g), "energy")
        for g in map(torch.Generator().manual_seed, range(300))
    ]
    assert np.mean(values) == pytest.approx(energy_1d(one, two), abs=3 * np.std(values) / 300**0.5)


@pytest.mark.parametrize(("n", "m"), [(6, 6), (6, 4), (5, 7), (1, 3)])
def test_one_dimension_of_unequal_sets_is_that_of_repeated_items(n, m):
    x, y = points(n, 1), points(m, 2)
    many = [z.repeat_interleave(math.lcm(n, m) // len(z), 0).sort(0).values for z in (x, y)]
    expected = (many[0] - many[1]).square().mean(0)
    torch.testing.assert_close(wasserstein_1d(x, y), expected)
    assert sliced_wasserstein(x[:, :1], y[:, :1]) == pytest.approx(expected[0].item())


def test_sliced_distance_of_a_shift_is_exact():
    x = points(50, 1, 8)
    shift = torch.arange(8).double()
    assert sliced_wasserstein(x, x + shift, 16) == pytest.approx(shift.square().sum().item() / 8, rel=1e-12)
    bases = orthonormal(8, 20, 0)
    torch.testing.assert_close(bases[8:16] @ bases[8:16].T, torch.eye(8).double())
    assert bases.shape == (20, 8)
    torch.testing.assert_close(bases.norm(dim=1), torch.ones(20).double())


def test_neighbors_by_hand():
    real, samples = torch.tensor([[0.0], [1.0], [3.0]]).double(), torch.tensor([[0.9], [-1.5], [6.0], [4.5]]).double()
    # Balls of k = 1: [-1, 1], [0, 2], [1, 5].
    assert precision(samples, real, 1) == 2 / 4
    assert density(samples, real, 1) == 3 / 4
    assert coverage(samples, real, 1) == 1
    # Balls of the samples: 2.4 around 0.9 and -1.5, 1.5 around 6 and 4.5.
    assert recall(samples, real, 1) == 1
    assert recall(samples[2:], real, 1) == 1 / 3


def test_neighbors_written_out():
    x, y, k = points(40, 1), points(30, 2, shift=0.5), 3
    reach = [sorted((a - b).norm().item() for b in y)[k] for a in y]
    inside = np.array([[(a - b).norm().item() <= r for b, r in zip(y, reach, strict=True)] for a in x])
    assert precision(x, y, k) == inside.any(1).mean()
    assert density(x, y, k) == pytest.approx(inside.sum() / (k * 40))
    assert coverage(x, y, k) == inside.any(0).mean()
    with pytest.raises(ValueError, match="k = 30 of 30 items"):
        precision(x, y, 30)


def test_ideal_coverage_is_its_mean():
    values = [coverage(points(20, seed), points(30, 1000 + seed), 3) for seed in range(400)]
    assert np.mean(values) == pytest.approx(ideal_coverage(20, 30, 3), abs=3 * np.std(values) / 20)
    assert ideal_coverage(1, 2, 1) == 0.5
    assert ideal_coverage(10**6, 10**6) == pytest.approx(1 - 2**-5, abs=1e-4)


def test_two_sample_test_by_a_line():
    far = two_sample_test(points(60, 1), points(50, 2, shift=4.0))
    assert far.value > 0.97
    assert far.low < far.value <= far.high <= 1
    # All in one place: every verdict is the same.
    same = two_sample_test(torch.zeros(60, 2), torch.zeros(50, 2))
    assert (same.value, same.p_value) == (0.5, 1.0)
    ring = points(150, 3)
    ring, disc = 3 * ring / ring.norm(dim=1, keepdim=True), points(150, 4)
    assert two_sample_test(ring, disc).p_value > 0.01
    assert two_sample_test(ring, disc, "neighbors").value > 0.9
    with pytest.raises(ValueError, match="9 items"):
        two_sample_test(points(9, 1), points(50, 2))


@pytest.mark.parametrize("sizes", [(80, 80), (40, 120)])
def test_the_p_value_keeps_its_level(sizes):
    values = [
        two_sample_test(points(sizes[0], 2 * s), points(sizes[1], 2 * s + 1), "neighbors").p_value for s in range(100)
    ]
    assert sum(p < 0.1 for p in values) <= 17


def test_shares():
    for successes, count in ((0, 20), (7, 20), (20, 20)):
        expected = binomtest(successes, count).proportion_ci(method="wilson")
        found = share(successes, count)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert found.value == successes / count
    both = mean_share(share(5, 10), share(5, 10))
    assert both.high - both.value == pytest.approx((share(5, 10).high - 0.5) / 2**0.5)


def test_memorisation():
    training, held_out, new = points(300, 1, 6), points(200, 2, 6), points(200, 3, 6)
    found = Memorization.from_sets(new, held_out, training, 30, 0)
    assert found.nearer.low < 0.5 < found.nearer.high
    assert found.close.low < 0.05 < found.close.high
    half = torch.cat([training[:50], training[50:100] + 1e-3, new[:100]])
    found = Memorization.from_sets(half, held_out, training, 30, 0)
    assert found.nearer.value == pytest.approx(0.75, abs=0.05)
    assert found.close.value == pytest.approx(0.5 + 0.025, abs=0.03)
    assert share_nearer(torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [3.0]])) == (1 + 1 + 0.5 + 1) / 4


def test_near_duplicates():
    real, samples = points(400, 1, 4), points(200, 2, 4)
    found = near_duplicates(samples, real, 30)
    assert found.low < 0.05 < found.high
    samples[10:20] = samples[0]
    samples[30:40] = samples[50:60] + 1e-6
    assert near_duplicates(samples, real, 30).value == pytest.approx((11 + 20) / 200 + 0.04, abs=0.04)


@pytest.mark.parametrize("name", ["logistic", "neighbors"])
def test_a_larger_set_is_no_evidence(name):
    found = [two_sample_test(points(60, s), points(600, 100 + s, shift=1.0), name) for s in range(5)]
    assert np.mean([estimate.value for estimate in found]) > 0.7
