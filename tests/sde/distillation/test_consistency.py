"""Consistency training and its easy tuning on Gaussian data, their laws of times, and the distance."""

import math

import pytest
import torch

from sde import SDES, Denoiser
from sde.distillation import FlowMap
from sde.distillation.consistency import WEIGHTINGS, Consistency, around, consistency_losses
from sde.distillation.distance import pseudo_huber
from sde.distillation.ect import EasyConsistency
from sde.distillation.method import Lesson
from sde.networks import MLP
from sde.training.loss import stratified
from sde.training.times import log_normal
from tests.oracles.planted_map import WRONG, X0, PlantedFlowMap, Z, draws_at, expected_gradient, time_of

PROCESSES = {name: SDES[name]() for name in ("flow", "vp", "ve")}


@pytest.mark.parametrize("process", ["flow", "vp", "ve"])
def test_training_is_biased_by_the_square_of_the_gap(process):
    """Without a teacher the loss keeps a variance; its expected gradient falls as (r_t - r_s)^2."""
    sde = PROCESSES[process]
    t = time_of(sde, 1.0)
    method = EasyConsistency(k=0.0, doublings=8, distance="mean_square", weighting="none")
    tuned = [expected_gradient(method, PlantedFlowMap(sde), t, a / 8 + 1e-9) for a in (3, 4, 5)]
    trained = []
    for gap in (1 / 16, 1 / 32, 1 / 64):
        times = torch.tensor([sde.t_max, t, time_of(sde, 1 - gap), sde.t_min], dtype=torch.float64)
        training = Consistency(distilled=False, distance="mean_square", weighting="none")
        between = 0.5 * (t + time_of(sde, 1 - gap))
        trained.append(expected_gradient(training, PlantedFlowMap(sde), between, grid=lambda *_, times=times: times))
    assert tuned == pytest.approx(trained, rel=1e-6)
    assert math.log2(tuned[1] / tuned[2]) == pytest.approx(2, abs=0.1)
    for wrong in WRONG.values():
        exact = PlantedFlowMap(sde)
        assert expected_gradient(method, PlantedFlowMap(sde, **wrong), t, 5 / 8, target=exact) > 1e-2


def test_consistency_law_is_the_discretized_log_normal():
    """Shares of the intervals are erf((log r_{i+1} - P_mean) / sqrt 2 P_std) - erf(...) (Song and Dhariwal 2024, eq.
    10), normalized."""
    sde = PROCESSES["ve"]
    generator = torch.Generator().manual_seed(0)
    t = log_normal(sde, stratified(20000, generator), mean=-1.1, std=2.0)
    times = sde.t_of_noise_level(torch.logspace(1, -2, 11, dtype=torch.float64))
    upper, lower = around(times, t)
    inside = (t <= times[0]) & (t >= times[-1])
    assert ((lower <= t) & (t <= upper))[inside].all()
    edges = torch.erf((sde.noise_level(times).log() + 1.1) / (2.0 * math.sqrt(2)))
    for i in range(1, 9):
        share = (upper == times[i]).double().mean().item()
        ends = sde.log_snr(torch.tensor([sde.t_max, sde.t_min], dtype=torch.float64))
        whole = torch.erf((-0.5 * ends + 1.1) / (2.0 * math.sqrt(2)))
        assert share == pytest.approx(((edges[i] - edges[i + 1]) / (whole[0] - whole[1])).item(), abs=2e-4)


def test_intervals_double_in_equal_shares():
    method = Consistency(first_intervals=4, last_intervals=25)
    assert [method.intervals(p) for p in (0.0, 0.2, 0.26, 0.51, 0.76, 0.999)] == [4, 4, 8, 16, 25, 25]
    assert Consistency(first_intervals=8, last_intervals=8).intervals(0.9) == 8


def test_easy_gaps_are_those_of_the_paper():
    """r / t = 1 - q^-a (1 + 8 / (1 + e^t)) at sigma_data = 0.5, never below 0 (Geng et al. 2024, section 3.2)."""
    method = EasyConsistency(base=2.0, k=8.0, b=1.0, doublings=4)
    t = torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64)
    for a in range(1, 5):
        n = 1 + 8 / (1 + t.exp())
        expected = (1 - n / 2**a).clamp(min=0)
        torch.testing.assert_close(1 - method.gap(t, (a - 0.5) / 4), expected)


def test_pseudo_huber():
    d = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-6, 0.0]], dtype=torch.float64, requires_grad=True)
    c = 0.5
    expected = (d.detach().square().mean(1) + c**2).sqrt() - c
    torch.testing.assert_close(pseudo_huber(d, c).detach(), expected, rtol=1e-4, atol=1e-15)
    root = pseudo_huber(d, 0.0)
    torch.testing.assert_close(root.detach(), d.detach().square().mean(1).sqrt())
    assert torch.autograd.grad(root.sum(), d)[0].isfinite().all()


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_data_end_itself_says_nothing(weighting):
    """A law of times may draw t_min, where s = t: no loss, and none that is not finite."""
    sde = PROCESSES["flow"]
    student = PlantedFlowMap(sde, 0.2, 0.1)
    losses = EasyConsistency(weighting=weighting).loss(student, X0, None, draws_at(sde.t_min, Z), Lesson(0.9))
    assert not losses.any()
    assert student.gradient(losses.sum()) == 0


def test_both_sides_see_the_same_dropout():
    """With both times the same the difference is zero, and would not be with other masks."""
    torch.manual_seed(0)
    network = MLP((6,), None, width=16, layers=2, dropout=0.5)
    student = FlowMap.of(Denoiser(network, PROCESSES["vp"])).train()
    for parameter in student.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x0 = torch.randn(5, 6)
    draws = draws_at(0.6, torch.randn(5, 6))
    method = Consistency(distance="mean_square", weighting="none")
    found = consistency_losses(method, student, x0, None, draws, (draws.t, draws.t))
    assert found.max() < 1e-12
    assert (student(x0, draws.t, draws.t - 0.1) - student(x0, draws.t, draws.t - 0.1)).abs().max() > 1e-3
