"""Consistency distillation and training: neighbors on one trajectory end at the same data."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from sde.condition.tree import ConditionLike
from sde.data.sizes import cut
from sde.device import as_tensor, forked_random, send
from sde.distillation.distance import DISTANCES
from sde.distillation.intervals import Grid, around
from sde.distillation.teacher import Teacher
from sde.process.base import SDE
from sde.training.loss import BatchNoise


WEIGHTINGS = {
    "none": lambda sde, t, s: torch.ones_like(t),
    "gap": lambda sde, t, s: 1 / (sde.noise_level(t) - sde.noise_level(s)),
}


def check_names(method, **tables) -> None:
    for name, table in tables.items():
        if getattr(method, name) not in table:
            raise ValueError(f"{name} = {getattr(method, name)!r}: needs one of {', '.join(table)}")


def same_end(
    student: Any,
    pairs: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]],
    end: Tensor,
    cond: ConditionLike | None,
    target: Any = None,
) -> Tensor:
    """The difference (B, *event) of where two states of one trajectory jump to at the times ``end`` (B,): (x_t, t), as
    the student has it, less (x_s, s), as ``target`` has it, the student itself unless told otherwise, without a
    gradient. Both see the same masks of dropout."""
    (x, t), (y, s) = pairs
    with torch.no_grad(), forked_random(x.device):
        told = (student if target is None else target)(y, s, end, cond)
    return student(x, t, end, cond) - told


@dataclass(frozen=True)
class Consistency:
    """w d(f(x_t, t), f^-(x_s, s)) of the jump f to t_min, t and s neighbors on a grid, f^- without a gradient.

    ``distilled``: x_s is the end of the teacher's solver from x_t (Song et al. 2023, algorithm 2); else x_s = alpha_s
    x_0 + sigma_s z with the x_0 and z of x_t (algorithm 3), which needs no teacher. t lies in the interval of a draw of
    ``times``: log_normal is the discretized law of Song and Dhariwal 2024, eq. 10. The number of intervals of ``grid``
    doubles from ``first_intervals`` to ``last_intervals`` in stretches of equal length (eq. 11).
    ``distance`` is a key of DISTANCES; pseudo_huber has ``huber_c`` (section 3.4). ``weighting``: "gap" is 1 / (r_t -
    r_s) with r = sigma / alpha (section 3.5), "none" 1. f^- is the student itself (section 3.2), or with
    ``target_decay`` above 0 an average of it (Song et al. 2023, eq. 8).

    With a solver of order p, the true D and the true map, the difference falls as h^(p+1) with the length h of the
    intervals. Without a teacher x_s keeps a variance, and the expected gradient of the mean square falls as h^2. Raises
    ValueError for unknown names and numbers out of range.
    """

    distilled: bool = True
    first_intervals: int = 8
    last_intervals: int = 32
    distance: str = "pseudo_huber"
    huber_c: float = 0.00054
    weighting: str = "gap"
    grid: str = "karras"
    times: str = "log_normal"
    target_decay: float = 0.0

    def __post_init__(self) -> None:
        check_names(self, distance=DISTANCES, weighting=WEIGHTINGS)
        if not 1 <= self.first_intervals <= self.last_intervals:
            raise ValueError(
                f"first_intervals = {self.first_intervals} and last_intervals = {self.last_intervals}: needs 1 <= "
                "first_intervals <= last_intervals"
            )

    @property
    def needs_teacher(self) -> bool:
        return self.distilled

    def stages(self) -> tuple[Self, ...]:
        return (self,)

    def intervals(self, progress: float) -> int:
        """How many intervals the grid has at a share of the run in [0, 1)."""
        doublings = math.ceil(math.log2(self.last_intervals / self.first_intervals))
        return min(self.first_intervals << int(progress * (doublings + 1)), self.last_intervals)

    def loss(self, student, x0, cond, draws, progress, *, teacher=None, target=None, grid=None) -> Tensor:
        x0, sde = as_tensor(x0), student.sde
        t, s = around(grid(sde, self.intervals(progress)), draws.t)
        z = draws.noise(x0)
        x = cut(sde.perturb(x0, t, z), draws.sizes)
        y = teacher.solve(x, t, s, cond) if self.distilled else cut(sde.perturb(x0, s, z), draws.sizes)
        difference = same_end(student, ((x, t), (y, s)), torch.full_like(t, sde.t_min), cond, target)
        losses = DISTANCES[self.distance](difference, self.huber_c, draws.sizes)
        return send(WEIGHTINGS[self.weighting](sde, t, s).to(losses.dtype), losses.device) * losses
