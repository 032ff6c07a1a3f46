"""Distillation on Gaussian data with exact steps, and with those of a solver, whose residuals have its order."""

import math

import pytest
import torch

from samplers import SAMPLERS
from sde import SDES
from sde.distillation.consistency import Consistency
from sde.distillation.method import Lesson
from sde.distillation.progressive import Progressive
from tests.oracles.planted_map import (
    WEIGHTS,
    WRONG,
    X0,
    ExactTeacher,
    PlantedFlowMap,
    Z,
    draws_at,
    solved_teacher,
    time_of,
)  # fmt: skip

PROCESSES = {name: kind() for name, kind in SDES.items()}


def distilled(kind, student, teacher, high, low, target=None, weighting="state"):
    """The loss (9,) of one interval between two noise levels."""
    sde = student.sde
    t, s = time_of(sde, high), time_of(sde, low)
    if kind == "progressive":
        times = [t, time_of(sde, math.sqrt(high * low)), s]
        method = Progressive(steps=1, first_steps=1, weighting=weighting)
    else:
        times = [*([sde.t_max] if t < sde.t_max else []), t, s, sde.t_min]
        method = Consistency(distance="mean_square", weighting="none")

    def grid(process, steps):
        return torch.tensor(times, dtype=torch.float64)

    lesson = Lesson(0.0, teacher, target, grid)
    return method.loss(student, X0, None, draws_at(0.5 * (t + s), Z), lesson)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("kind", ["progressive", "consistency"])
def test_exact_steps_leave_the_exact_map_alone(kind, process):
    sde = PROCESSES[process]
    for high, low in ((5.0, 2.0), (1.0, 0.1), (0.4, 0.2)):
        student = PlantedFlowMap(sde)
        losses = distilled(kind, student, ExactTeacher(sde), high, low, weighting="truncated_snr")
        assert losses.max() < 1e-6
        assert student.gradient(losses.mean()) < 1e-6
        for wrong in WRONG.values():
            student = PlantedFlowMap(sde, **wrong)
            losses = distilled(kind, student, ExactTeacher(sde), high, low, target=PlantedFlowMap(sde))
            assert student.gradient(losses.mean()) > 1e-2


@pytest.mark.parametrize("process", ["flow", "vp", "ve"])
@pytest.mark.parametrize("name", ["ddim", "heun"])
@pytest.mark.parametrize("kind", ["progressive", "consistency"])
def test_solvers_leave_residuals_of_their_order(kind, name, process):
    """At the exact map the loss falls as h^(2 p + 2); its gradient by the coefficients of x_s, which is twice the
    residual times x, as h^(p + 1): for the consistency function itself, which B makes of M at any h."""
    sde, order = PROCESSES[process], SAMPLERS[name].order
    found = []
    for step in (0.2, 0.1, 0.05):
        student = PlantedFlowMap(sde)
        loss = (WEIGHTS * distilled(kind, student, solved_teacher(sde, name), 1.0, math.exp(-step))).sum()
        scale = student.factors(*(torch.tensor(time_of(sde, r)) for r in (1.0, math.exp(-step))))[1]
        gradient = student.gradient(loss) / (scale if kind == "progressive" else 1.0)
        found.append((loss.item(), float(gradient)))
    (_, _), (loss, gradient), (half_loss, half_gradient) = found
    assert math.log2(loss / half_loss) == pytest.approx(2 * order + 2, abs=0.4)
    assert math.log2(gradient / half_gradient) == pytest.approx(order + 1, abs=0.3)
