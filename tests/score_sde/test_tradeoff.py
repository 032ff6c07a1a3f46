"""Accuracy and diversity: known values of constructed sets, closed forms of Gaussians, and errors that are true."""

import math

import pytest
import torch

from score_sde.evaluation.tradeoff import tradeoff

SQUARE = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


def test_a_square():
    """Four sides and two diagonals are the six pairs of its corners; a distance is per square root of the dimension."""
    labels = torch.zeros(4, dtype=torch.long)
    found = tradeoff(SQUARE, labels, torch.tensor([0, 0, 0, 1]))
    assert found.accuracy == pytest.approx(0.75)
    assert found.distance == pytest.approx((4 + 2 * math.sqrt(2)) / 6 / math.sqrt(2))
    shaped = tradeoff(SQUARE.view(4, 1, 2, 1), labels, torch.tensor([0, 0, 0, 1]))
    assert shaped == found


def test_classes_count_alike_and_apart():
    """Two items of class 0, 6 apart, and four of class 2, a unit square, whatever lies between the classes."""
    x = torch.cat([torch.tensor([[50.0, 0.0], [50.0, 6.0]]), SQUARE])
    labels = torch.tensor([0, 0, 2, 2, 2, 2])
    found = tradeoff(x, labels, torch.tensor([0, 2, 2, 2, 2, 2]))
    assert found.accuracy == pytest.approx((0.5 + 1) / 2)
    assert found.distance == pytest.approx((6 + (4 + 2 * math.sqrt(2)) / 6) / 2 / math.sqrt(2))
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    shuffled = tradeoff(x[order], labels[order], torch.tensor([0, 2, 2, 2, 2, 2])[order])
    assert (shuffled.accuracy, shuffled.distance) == pytest.approx((found.accuracy, found.distance))


def test_copies_have_no_diversity():
    found = tradeoff(torch.ones(6, 3), torch.tensor([0, 1] * 3), torch.tensor([0, 1] * 3))
    assert (found.accuracy, found.accuracy_stderr) == (1, 0)
    assert found.distance == pytest.approx(0, abs=1e-6)
    assert found.distance_stderr == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dim", [1, 3, 64])
def test_gaussians(dim):
    """E |x - x'| of two draws of N(m, s^2 I) is 2 s Gamma((d + 1) / 2) / Gamma(d / 2); the estimate has no bias,
    however few the items, and its standard error is the spread of such estimates."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % 2
    expected = 2 * 0.7 * math.exp(math.lgamma((dim + 1) / 2) - math.lgamma(dim / 2)) / math.sqrt(dim)
    draws = 0.7 * torch.randn(300, 24, dim, generator=generator) + 5 * labels[:, None]
    right = torch.where(torch.rand(300, 24, generator=generator) < 0.8, labels, 1 - labels)
    results = [tradeoff(x, labels, found) for x, found in zip(draws, right, strict=True)]
    for name, truth in (("distance", expected), ("accuracy", 0.8)):
        values = torch.tensor([getattr(result, name) for result in results])
        errors = torch.tensor([getattr(result, f"{name}_stderr") for result in results])
        spread = values.std().item()
        assert values.mean().item() == pytest.approx(truth, abs=4 * spread / math.sqrt(300)), name
        assert errors.square().mean().sqrt().item() == pytest.approx(spread, rel=0.2), name


@pytest.mark.parametrize("place", [0, 7, 19])
def test_every_item_is_drawn_alike(place):
    """The share of a class of which one item of 20 is taken for it has the standard error sqrt(p (1 - p) / n), wherever
    that item stands; 500 resamplings know it to 3 %."""
    labels = torch.zeros(20, dtype=torch.long)
    found = tradeoff(torch.randn(20, 2), labels, 1 - torch.eye(20, dtype=torch.long)[place])
    assert found.accuracy_stderr == pytest.approx((0.05 * 0.95 / 20) ** 0.5, rel=0.15)


def test_a_single_item_is_refused():
    with pytest.raises(ValueError, match="class 1 has a single item: its diversity needs two"):
        tradeoff(SQUARE, torch.tensor([0, 0, 0, 1]), torch.zeros(4, dtype=torch.long))
