"""The examination of a student: its samples beside the data, and whether its network listens to what it is told."""

import dataclasses
from typing import Any

import torch

from samplers import generate
from samplers.calls import evaluating
from score_sde.diagnosis.causes import INSENSITIVE, Finding, wrong_range
from score_sde.diagnosis.diagnosis import off_samples
from score_sde.diagnosis.examination import law_of_samples
from score_sde.evaluation.validation import Validation
from score_sde.run.conditions import held_out_condition
from score_sde.run.folder import Run
from score_sde.run.outputs import calls
from score_sde.run.sizes import sizes_of_samples
from score_sde.run.students import usual_sampling
from sde.data import Dataset
from sde.distillation import FlowMap


def examine_student(
    run: Run, model: FlowMap, training: Dataset, held_out: Dataset, items: int, batch_size: int
) -> dict[str, Any]:
    """What ``diagnose_student`` asks for, as plain numbers: samples as ``--mode sample`` draws them, and by how much of
    its size a jump from pure noise changes where its end does."""
    student: Any = run.student
    settings = run.config.training
    nearest = Validation(
        held_out, training, model.sde, settings.optimization.times, settings.loss_weighting, device=run.device
    )
    cond, sizes = held_out_condition(held_out, model, items), sizes_of_samples(run, items, 0)
    sampler, times = usual_sampling(student, model.sde)
    bound = model.bound(cond)
    drawn = generate(bound, sampler, items, training.event_shape, grid=times, batch_size=batch_size, sizes=sizes)
    return {
        "student": student,
        "calls": drawn.mean_nfe,
        "range": {
            "model": dataclasses.asdict(model.transform.outer),
            "data": dataclasses.asdict(held_out.transform.outer),
            "sigma_data": [model.sigma_data, training.sigma_data],
            "measured": not run.config.model.sigma_data,
        },
        "sensitivity": {"arrival": sensitivity(model, run)},
        "samples": law_of_samples(drawn.x, sizes, training, nearest),
    }


@torch.no_grad()
def sensitivity(model: FlowMap, run: Run) -> float:
    """By how much of its size M(x, t_max, s) changes from s = t_min to the middle of the process."""
    sde = model.sde
    shape = model.transform.inner_shape(run.event_shape)
    x = torch.randn(16, *shape, generator=torch.Generator().manual_seed(0)).to(run.device) * sde.prior_std()
    t, middle, end = (
        torch.tensor(u, dtype=torch.float64) for u in (sde.t_max, 0.5 * (sde.t_min + sde.t_max), sde.t_min)
    )
    with evaluating(model):
        near, far = (model.mean_denoised(x, t, s) for s in (middle, end))
    return ((near - far).norm() / far.norm().clamp(min=1e-12)).item()


def diagnose_student(m: dict) -> list[Finding]:
    """The faults in the measurements of ``examine_student``."""
    found = [wrong_range(m)]
    if found[0] is None:
        off = off_samples(m)
        remedy = "train for more steps, or distill to a student of more of them"
        found.append(None if off is None else off._replace(remedy=remedy))
    return [finding for finding in found if finding]


def table_of_student(run: Run, m: dict) -> list[str]:
    """The measurements as lines of text."""
    student = m["student"]
    taught = f" of {student['teacher']}" if student["teacher"] else ""
    lines = [f"{run.folder}: {run.weights}, a student{taught} by {student['method']}, {calls(m['calls'])} a sample"]
    if student["sampler"] == "jump":
        change = m["sensitivity"]["arrival"]
        heard = "" if change >= INSENSITIVE else ": it does not listen to where it jumps"
        lines.append(f"network: another time to jump to changes what it says by {change:.1%}{heard}")
    return lines
