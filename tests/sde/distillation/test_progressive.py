"""Progressive distillation: its target, its stages, and its teachers."""

from itertools import pairwise

import pytest
import torch

from samplers import GRIDS, SAMPLERS
from sde import SDES
from sde.distillation import FlowMapTeacher
from sde.distillation.method import Lesson
from sde.distillation.progressive import Progressive
from tests.oracles.planted_map import X0, PlantedFlowMap, Z, draws_at, solved_teacher, time_of

PROCESSES = {name: SDES[name]() for name in ("flow", "vp", "ve")}


@pytest.mark.parametrize("process", ["flow", "vp", "ve"])
def test_progressive_target_is_two_ddim_steps(process):
    """M~ = (z_s - (sigma_s / sigma_t) z_t) / (alpha_s - (sigma_s / sigma_t) alpha_t), z_s from two DDIM steps written
    out from Salimans and Ho 2022, eq. 8 and algorithm 2: a student that says it has no loss, any other its error."""
    sde = PROCESSES[process]
    gaussian = PlantedFlowMap(sde).gaussian
    times = [torch.tensor(time_of(sde, r), dtype=torch.float64) for r in (2.0, 0.9, 0.3)]
    x = sde.perturb(X0, times[0], Z)
    z = x
    for start, end in pairwise(times):
        denoised = gaussian(z, start)
        noise = (z - sde.alpha(start) * denoised) / sde.sigma(start)
        z = sde.alpha(end) * denoised + sde.sigma(end) * noise
    ratio = sde.sigma(times[2]) / sde.sigma(times[0])
    told = (z - ratio * x) / (sde.alpha(times[2]) - ratio * sde.alpha(times[0]))

    class Says:
        def __init__(self, error):
            self.sde, self.error = sde, error

        def mean_denoised(self, x, t, s, cond):
            return told + self.error

    for weighting, weight in {"truncated_snr": 1.0, "snr_plus_one": 1.25}.items():
        method = Progressive(steps=1, first_steps=1, weighting=weighting)
        for error in (0.0, 0.3):
            losses = method.loss(
                Says(error), X0, None, draws_at(times[1].item(), Z),
                Lesson(teacher=solved_teacher(sde, "ddim"), grid=lambda *_: torch.stack(times)),
            )  # fmt: skip
            torch.testing.assert_close(
                losses, torch.full((9,), weight * error**2, dtype=torch.float64), atol=1e-12, rtol=1e-9
            )


def test_progressive_stages_are_nested():
    method, sde = Progressive(steps=1, first_steps=4), PROCESSES["flow"]
    stages = method.stages()
    assert [stage.steps for stage in stages] == [4, 2, 1]
    times = [stage.sampling_times(sde, GRIDS["karras"]).tolist() for stage in stages]
    assert [len(found) for found in times] == [5, 3, 2]
    assert times[1] == times[0][::2]
    assert times[2] == [sde.t_max, sde.t_min]


@pytest.mark.parametrize("name", ["ddim", "heun"])
@pytest.mark.parametrize("process", ["flow", "vp"])
def test_solved_teacher_steps_each_row_at_its_own_times(name, process):
    """As the sampler steps them one by one; from an open noise end as every run does."""
    sde = PROCESSES[process]
    teacher = solved_teacher(sde, name)
    t = torch.tensor([sde.t_max, 0.6, 0.3], dtype=torch.float64)
    s = torch.tensor([0.5, 0.2, 0.25], dtype=torch.float64)
    x = sde.perturb(X0[:3], t, Z[:3])
    found = teacher.solve(x, t, s, None)
    for row in range(3):
        if sde.open_end and row == 0:
            model = teacher.bind(None)
            alone = sde.alpha(s[0]) * model(x[:1], t[0]) + sde.sigma(s[0]) * x[:1]
        else:
            alone, _ = SAMPLERS[name]().step(teacher.bind(None), x[row : row + 1], t[row], s[row], None)
        torch.testing.assert_close(found[row : row + 1], alone, rtol=1e-12, atol=1e-12)


def test_earlier_student_as_teacher():
    student = PlantedFlowMap(PROCESSES["vp"], 0.2, 0.1)
    teacher = FlowMapTeacher(student)
    t, s = (torch.full((9,), end, dtype=torch.float64) for end in (0.7, 0.2))
    assert torch.equal(teacher.solve(X0, t, s, None), student(X0, t, s))
    assert torch.equal(teacher.denoised(X0, t, None), student.mean_denoised(X0, t, t))
