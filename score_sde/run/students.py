"""Students as they are sampled: by which of the samplers of flow maps, and at which times."""

from typing import Any

import torch
from torch import Tensor

from samplers import FLOW_MAP_SAMPLERS, SAMPLERS, SCORE_SAMPLERS
from samplers.grid import make_jumps
from score_sde.run.folder import Run
from score_sde.run.inputs import read_grid
from sde import SDE

Times = str | Tensor | None


def times_of_run(run: Run, sampler: str, grid: str | None, steps: int | None) -> tuple[Times, int | None]:
    """``--grid`` and ``--steps`` for a sampler by name, and of a student where they are not given what it was trained
    for. Raises ValueError for a sampler that asks for another kind of model, and for jumps that a student never
    made."""
    times: Times = read_grid(grid, run)
    if run.student is None:
        if sampler in FLOW_MAP_SAMPLERS:
            raise ValueError(
                f"--sampler={sampler}: samples students, of --mode distill, and {run.folder} holds a score model; take "
                f"one of {', '.join((*SCORE_SAMPLERS, 'auto'))}"
            )
        return times, steps
    method, own = run.student["method"], run.student["times"]
    who = f"the student in {run.folder} was distilled by {method}"
    if sampler not in FLOW_MAP_SAMPLERS:
        raise ValueError(
            f"--sampler={sampler}: {who}, and jumps; it has no score, so take {' or '.join(FLOW_MAP_SAMPLERS)}"
        )
    count = len(times) - 1 if isinstance(times, Tensor) else steps
    if own is not None:
        known = len(own) - 1
        if times is not None or steps not in (None, known) or (sampler != "jump" and known > 1):
            given = f"--grid={grid}" if times is not None else f"--steps={steps}" if steps else f"--sampler={sampler}"
            raise ValueError(
                f"{given}: {who} to {known} jump{'s' * (known > 1)} at times of its own, and knows no others; take "
                "--sampler jump, and leave --grid and --steps out"
            )
        return torch.tensor(own, dtype=torch.float64), None
    count = SAMPLERS[sampler]().steps if count is None else count
    if sampler == "jump" and run.student["sampler"] == "renoise" and count > 1:
        raise ValueError(
            f"--sampler={sampler}: {who}, and jumps to the data alone, in one step; take --steps=1, or --sampler "
            "renoise, whose steps add noise again"
        )
    return (run.student["grid"] if times is None else times), steps


def usual_sampling(student: dict, sde: SDE) -> tuple[Any, Tensor]:
    """How a student is sampled where nothing else is asked for: the sampler of its method, and its own times, or as
    many steps as the sampler's of the grid of its method. ``student`` is the ``flow_map`` of its description."""
    sampler: Any = SAMPLERS[student["sampler"]]()
    if student["times"] is not None:
        return sampler, torch.tensor(student["times"], dtype=torch.float64)
    return sampler, make_jumps(sde, student["grid"], sampler.steps)
