"""Progressive distillation: one step of the student for two of its teacher, stage by stage."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from sde.condition.tree import ConditionLike
from sde.data.sizes import cut
from sde.device import as_tensor, send
from sde.distillation.distance import mean_square
from sde.distillation.intervals import Grid
from sde.distillation.teacher import Teacher, jump_factors
from sde.process.base import SDE
from sde.process.coefficients import combine
from sde.training.loss import BatchNoise

WEIGHTINGS: dict[str, Callable[[SDE, Tensor, Tensor], Tensor]] = {
    "truncated_snr": lambda sde, t, s: sde.log_snr(t).exp().clamp(min=1),
    "snr_plus_one": lambda sde, t, s: sde.log_snr(t).exp() + 1,
    "state": lambda sde, t, s: torch.as_tensor(jump_factors(sde, t, s)[1]).square(),
}
"""Weights of |M - M~|^2. truncated_snr: max(alpha^2 / sigma^2, 1), the larger of the errors in x_0 and in the noise
(Salimans and Ho 2022, eq. 9); snr_plus_one: alpha^2 / sigma^2 + 1 (eq. 10); state: B^2, |x_s - x~_s|^2."""


@dataclass(frozen=True)
class Progressive:
    """w(t) |M(x_t, t, s) - M~|^2 with the M~ whose jump ends where two steps of the teacher do (Salimans and Ho 2022,
    algorithm 2): over the interval from t to s of a grid of ``steps`` steps, with the middle u of a grid of twice as
    many,

        x~ = solve(solve(x_t, t, u), u, s),    M~ = (x~ - A x_t) / B,    A = sigma_s / sigma_t, B = alpha_s - alpha_t A.

    Training is in stages of ``first_steps``, half as many, and so on to ``steps``; the student of a stage is the
    teacher of the next. ``weighting`` is a key of WEIGHTINGS. With a solver of order p and the true D, the true map's
    residual x_s - x~_s falls as h^(p+1), h the length of the interval, and that of M as h^p, since B falls as h.
    Raises ValueError for numbers of steps that are no powers of two, and for an unknown weighting.
    """

    steps: int = 1
    first_steps: int = 4
    weighting: str = "truncated_snr"
    grid: str = "karras"
    times: ClassVar[str] = "uniform"
    target_decay: ClassVar[float] = 0.0
    needs_teacher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("steps", "first_steps"):
            value = getattr(self, name)
            if not (isinstance(value, int) and value > 0 and value & (value - 1) == 0):
                raise ValueError(f"{name} = {value}: needs a power of two, as stages halve the number of steps")
        if self.first_steps < self.steps:
            raise ValueError(
                f"first_steps = {self.first_steps} is below steps = {self.steps}: stages go from more steps to fewer"
            )
        if self.weighting not in WEIGHTINGS:
            raise ValueError(f"weighting = {self.weighting!r}: needs one of {', '.join(WEIGHTINGS)}")

    def stages(self) -> tuple[Self, ...]:
        """The stages in order, each a method of its own that ends with it: ``steps`` = ``first_steps``, half as many,
        and so on."""
        halvings = (self.first_steps // self.steps).bit_length()
        return tuple(replace(self, steps=self.first_steps >> k) for k in range(halvings))

    def sampling_times(self, sde: SDE, grid: Grid) -> Tensor:
        """The times (steps + 1,) between which this stage's student jumps: every second, fourth, ... of those of the
        first teacher's steps, so that the stages' times are nested, at open noise ends as well."""
        return grid(sde, 2 * self.first_steps)[:: 2 * self.first_steps // self.steps]

    def loss(
        self,
        student: Any,
        x0: Tensor,
        cond: ConditionLike | None,
        draws: BatchNoise,
        progress: float,
        *,
        teacher: Teacher | None = None,
        target: Any = None,
        grid: Grid | None = None,
    ) -> Tensor:
        """The losses (B,) of items x0 (B, *event) in model units at this stage's ``steps``."""
        assert teacher is not None and grid is not None
        x0, sde = as_tensor(x0), student.sde
        fine = replace(self, steps=2 * self.steps, first_steps=2 * self.first_steps).sampling_times(sde, grid)
        fraction = (draws.t - sde.t_min) / (sde.t_max - sde.t_min)
        place = (fraction * self.steps).long().clamp(0, self.steps - 1)
        t, u, s = (fine[2 * place + k] for k in range(3))
        x = cut(sde.perturb(x0, t, draws.noise(x0)), draws.sizes)
        ends = teacher.solve(teacher.solve(x, t, u, cond), u, s, cond)
        keep, change = jump_factors(sde, t, s)
        told = combine(1 / change, ends, -keep / change, x)
        losses = mean_square(student.mean_denoised(x, t, s, cond) - told, draws.sizes)
        return send(WEIGHTINGS[self.weighting](sde, t, s).to(losses.dtype), losses.device) * losses
