"""Experts: each time has one model, and each row its own."""

import pytest
import torch

from samplers import SAMPLERS, sample
from sde import VPSDE, FlowSDE, ScoreModel
from sde.guidance import Experts


class Scaled(ScoreModel):
    """D = factor x, of a factor per row."""

    with_rows = ("factor",)

    def __init__(self, sde, factor):
        super().__init__(sde)
        self.factor, self.calls = factor, []

    def forward(self, x, t):
        self.calls.append(t.flatten()[0].item())
        return self.factor[: len(x), None] * x


def pair(switch=0.5):
    sde = VPSDE()
    early, late = Scaled(sde, torch.tensor([1.0, 2.0, 3.0])), Scaled(sde, torch.tensor([10.0, 20.0, 30.0]))
    return Experts(early, late, switch), early, late


def test_a_time_of_its_own_per_row():
    model, *_ = pair()
    x = torch.ones(3, 2)
    assert model(x, torch.tensor([0.5, 0.49, 0.9]))[:, 0].tolist() == [1, 20, 3]
    assert model(x, torch.tensor([0.1, 0.2, 0.3]))[:, 0].tolist() == [10, 20, 30]
    assert model.rows(torch.tensor([2, 0]))(x[:2], torch.tensor([0.7, 0.1]))[:, 0].tolist() == [3, 10]


def test_a_run_hands_over_once():
    model, early, late = pair()
    times = torch.linspace(1, 0.1, 10, dtype=torch.float64)
    sample(model, SAMPLERS["ddim"](), torch.ones(3, 2), times)
    assert early.calls == pytest.approx([1, 0.9, 0.8, 0.7, 0.6, 0.5])
    assert late.calls == pytest.approx([0.4, 0.3, 0.2, 0.1])


def test_what_does_not_fit():
    _, early, late = pair()
    with pytest.raises(ValueError, match="switch = 2: needs a time above"):
        Experts(early, late, 2.0)
    with pytest.raises(ValueError, match="needs models on one process"):
        Experts(early, Scaled(FlowSDE(), torch.ones(3)), 0.5)
    with pytest.raises(TypeError, match="Experts around int"):
        Experts(3, late, 0.5)
