"""MeanFlow on Gaussian data, where the average velocity is known for every pair of times."""

import pytest
import torch

from sde import SDES
from sde.distillation.distance import mean_square
from sde.distillation.meanflow import MeanFlow
from sde.distillation.method import Lesson
from tests.oracles.planted_map import (
    WRONG,
    X0,
    ExactTeacher,
    PlantedFlowMap,
    Z,
    draws_at,
    expected_gradient,
    time_of,
)  # fmt: skip

PROCESSES = {name: SDES[name]() for name in ("flow", "gvp", "vp", "ve")}


@pytest.mark.parametrize("process", ["flow", "gvp", "vp", "ve"])
def test_mean_flow_identity(process, monkeypatch):
    """The expected gradient, x_0 in the place of D or a teacher's D, vanishes at the exact map for every pair of
    times, and at no other."""
    sde = PROCESSES[process]
    levels = [0.1, 1.0, 5.0]
    ends = [sde.t_min, *(time_of(sde, level) for level in levels)]
    for i, t in enumerate(ends[1:], 1):
        for s in ends[: i + 1]:
            pair = tuple(torch.full((9,), end, dtype=torch.float64) for end in (t, s))
            monkeypatch.setattr(MeanFlow, "pair", lambda self, sde, draws, pair=pair: pair)
            for method in (MeanFlow(adaptive_power=0), MeanFlow(adaptive_power=0, distilled=True)):
                given = {"teacher": ExactTeacher(sde)} if method.distilled else {}
                assert expected_gradient(method, PlantedFlowMap(sde), t, **given) < 1e-6
                for wrong in WRONG.values():
                    assert expected_gradient(method, PlantedFlowMap(sde, **wrong), t, **given) > 1e-2


def test_mean_flow_is_that_of_the_paper_on_the_straight_path():
    """u = (x - M) / t, u~ = v - (t - s) (v grad u + du/dt) with v = z - x_0 (Geng et al. 2025, eqs. 9 and 10)."""
    sde = PROCESSES["flow"]
    student = PlantedFlowMap(sde, 0.2, -0.1)
    t, s = (torch.full((9,), end, dtype=torch.float64) for end in (0.7, 0.2))
    x, v = sde.perturb(X0, t, Z), Z - X0

    def average(x, t):
        return (x - student.mean_denoised(x, t, s)) / t[:, None]

    u, change = torch.func.jvp(average, (x, t), (v, torch.ones_like(t)))
    loss = mean_square(u - (v - 0.5 * change).detach())
    method = MeanFlow(adaptive_power=0.0)
    object.__setattr__(method, "pair", lambda sde, draws: (t, s))
    found = method.loss(student, X0, None, draws_at(0.7, Z), Lesson())
    torch.testing.assert_close(found, loss)
    ours, theirs = (torch.autograd.grad(one.sum(), [*student.parameters()]) for one in (found, loss))
    torch.testing.assert_close(ours, theirs)


def test_mean_flow_guides_itself():
    """D = w x_0 + k M(cond) + (1 - w - k) M(null), which leaves a map alone whose D is guided by w / (1 - k)."""
    sde = PROCESSES["vp"]

    class Two(PlantedFlowMap):
        def mean_denoised(self, x, t, s, cond=None):
            plain = super().mean_denoised(x, t, s)
            return plain + (1.5 if (cond["labels"] == 0).all() else 0.0)

    t = torch.full((9,), time_of(sde, 1.0), dtype=torch.float64)
    method = MeanFlow(guidance_scale=1.8, guidance_mixing=0.4)
    x = sde.perturb(X0, t, Z)
    guided = method._guided(Two(sde), x, t, {"labels": torch.zeros(9, dtype=torch.long)}, X0)
    null = PlantedFlowMap(sde).mean_denoised(x, t, t).detach()
    torch.testing.assert_close(guided, 1.8 * X0 + 0.4 * (null + 1.5) - 1.2 * null)
