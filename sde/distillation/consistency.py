"""Consistency distillation and training: neighbors on one trajectory end at the same data."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from sde.condition.tree import ConditionLike
from sde.data.sizes import cut
from sde.device import as_tensor, forked_random, send
from sde.distillation.distance import DISTANCES
from sde.distillation.method import Lesson, check_choice, check_range, given, times_of
from sde.distillation.teacher import Teacher
from sde.process.base import SDE
from sde.training.loss import BatchNoise

WEIGHTINGS: dict[str, Callable[[SDE, Tensor, Tensor], Tensor]] = {
    "none": lambda sde, t, s: torch.ones_like(t),
    "gap": lambda sde, t, s: 1 / (sde.noise_level(t) - sde.noise_level(s)),
    "relative_gap": lambda sde, t, s: 1 / (1 - sde.noise_level(s) / sde.noise_level(t)),
}
"""Weights of a pair of times t > s, of noise levels r = sigma / alpha. none: 1; gap: 1 / (r_t - r_s) (Song and Dhariwal
2024, section 3.1); relative_gap: r_t / (r_t - r_s), which does not say less of noisy times."""


def around(times: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The neighboring times (B,), later and earlier, of a grid (steps + 1,) between which each of t (B,) lies."""
    ascending = times.flip(0)
    upper = torch.searchsorted(ascending, t.contiguous(), right=True).clamp(1, len(times) - 1)
    return ascending[upper], ascending[upper - 1]


class Compared(Protocol):
    """What says how two ends are compared: ``distance``, a key of DISTANCES, with ``huber_c``; ``weighting``, a key of
    WEIGHTINGS."""

    @property
    def distance(self) -> str: ...
    @property
    def huber_c(self) -> float: ...
    @property
    def weighting(self) -> str: ...


def consistency_losses(
    method: Compared,
    student: Any,
    x0: Tensor,
    cond: ConditionLike | None,
    draws: BatchNoise,
    pair: tuple[Tensor, Tensor],
    teacher: Teacher | None = None,
    target: Any = None,
) -> Tensor:
    """w d(f(x_t, t) - f^-(x_s, s)), (B,), of a ``pair`` of times t > s (B,), with the jump f to t_min of the student,
    and that of the target, f^-, the student itself where there is none, without a gradient; both with the same masks of
    dropout. x_s is the end of the teacher's step from x_t, or without a teacher alpha_s x_0 + sigma_s z with the x_0
    and z of x_t."""
    (t, s), sde, z = pair, student.sde, draws.noise(x0)
    x = cut(sde.perturb(x0, t, z), draws.sizes)
    y = cut(sde.perturb(x0, s, z), draws.sizes) if teacher is None else teacher.solve(x, t, s, cond, draws.sizes)
    end = torch.full_like(t, sde.t_min)
    with torch.no_grad(), forked_random(x.device):
        told = (student if target is None else target)(y, s, end, cond)
    losses = DISTANCES[method.distance](student(x, t, end, cond) - told, method.huber_c, draws.sizes)
    # Both times may be t_min, where there is nothing to learn.
    weight = torch.where(t > s, WEIGHTINGS[method.weighting](sde, t, s), 0)
    return send(weight.to(losses.dtype), losses.device) * losses


@dataclass(frozen=True)
class Consistency:
    """w d(f(x_t, t) - f^-(x_s, s)) of the jump f to t_min, with neighbors t and s of a grid.

    ``distilled``, consistency distillation: x_s is the end of the teacher's step from x_t (Song et al. 2023, algorithm
    2). Else, consistency training: alpha_s x_0 + sigma_s z with the x_0 and z of x_t (algorithm 3).
    t and s lie around a draw of ``times``: log_normal is the discretized law of Song and Dhariwal 2024, section 3.5.
    The intervals of ``grid`` are doubled from ``first_intervals`` to ``last_intervals``, for equal shares of the run
    (section 3.4). ``distance`` is a key of DISTANCES, ``huber_c`` the constant of pseudo_huber (section 3.3),
    ``weighting`` a key of WEIGHTINGS. f^- is the student without a gradient (section 3.2), or with ``target_decay``
    above 0 the average of it (Song et al. 2023, eq. 8).

    With a solver of order p and the true D, the true map's f - f^- falls as h^(p + 1), h the length of the interval.
    Without a teacher f - f^- keeps a variance, and its mean given x_t falls as h^2: so does the expected gradient of
    the mean square. Raises ValueError for unknown names and numbers out of range.
    """

    distilled: bool = True
    first_intervals: int = 8
    last_intervals: int = 32
    distance: str = "pseudo_huber"
    huber_c: float = 0.00054
    weighting: str = "relative_gap"
    grid: str = "karras"
    times: str = "log_normal"
    time_mean: float = 0.3
    time_std: float = 1.8
    target_decay: float = 0.0
    sampler: ClassVar[str] = "renoise"

    def __post_init__(self) -> None:
        check_choice(self, distance=DISTANCES, weighting=WEIGHTINGS)
        times_of(self)
        check_range(self, 0, math.inf, "huber_c")
        check_range(self, 0, 1, "target_decay")
        if not 1 <= self.first_intervals <= self.last_intervals:
            raise ValueError(
                f"first_intervals = {self.first_intervals} and last_intervals = {self.last_intervals}: needs 1 <= "
                "first_intervals <= last_intervals"
            )

    @property
    def needs_teacher(self) -> bool:
        return self.distilled

    def stages(self) -> tuple[Self, ...]:
        """One."""
        return (self,)

    def intervals(self, progress: float) -> int:
        """How many intervals the grid has where a share of the run in [0, 1) is done."""
        doublings = math.ceil(math.log2(self.last_intervals / self.first_intervals))
        return min(self.first_intervals << int(progress * (doublings + 1)), self.last_intervals)

    def loss(self, student: Any, x0: Tensor, cond: ConditionLike | None, draws: BatchNoise, lesson: Lesson) -> Tensor:
        """As ``Method.loss``."""
        pair = around(given("grid", lesson.grid)(student.sde, self.intervals(lesson.progress)), draws.t)
        asked = given("teacher", lesson.teacher) if self.distilled else None
        return consistency_losses(self, student, as_tensor(x0), cond, draws, pair, asked, lesson.target)
