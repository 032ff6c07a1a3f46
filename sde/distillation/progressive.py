"""Progressive distillation: one step of the student for two of its teacher, stage by stage."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from torch import Tensor

from sde.condition.tree import ConditionLike
from sde.data.sizes import cut
from sde.device import as_tensor, send
from sde.distillation.distance import mean_square
from sde.distillation.flow_map import jump_factors
from sde.distillation.method import Grid, Lesson, check_choice, given
from sde.process.base import SDE
from sde.process.coefficients import combine
from sde.training.loss import BatchNoise

WEIGHTINGS: dict[str, Callable[[SDE, Tensor, Tensor], Tensor]] = {
    "truncated_snr": lambda sde, t, s: sde.log_snr(t).exp().clamp(min=1),
    "snr_plus_one": lambda sde, t, s: sde.log_snr(t).exp() + 1,
    "state": lambda sde, t, s: as_tensor(jump_factors(sde, t, s)[1]).square(),
}
"""Weights of |M - M~|^2. truncated_snr: max(alpha^2 / sigma^2, 1), the larger of the errors in x_0 and in the noise
(Salimans and Ho 2022, eq. 9); snr_plus_one: alpha^2 / sigma^2 + 1 (eq. 10); state: B^2, which makes |x_s - x~_s|^2."""


@dataclass(frozen=True)
class Progressive:
    """w |M(x_t, t, s) - M~|^2 with the M~ whose jump ends where two steps of the teacher do (Salimans and Ho 2022,
    algorithm 2, G.): over an interval from t to s of a grid of ``steps`` steps, and with the middle u of it,

        x~ = solve(solve(x_t, t, u), u, s),    M~ = (x~ - A x_t) / B,    A = sigma_s / sigma_t, B = alpha_s - alpha_t A.

    Stages have ``first_steps`` steps, half as many, and so on to ``steps``; the student of a stage is the teacher of
    the next. ``grid`` is that of the first teacher's steps, twice ``first_steps``, of which the stages take every
    second, every fourth, and so on. ``weighting`` is a key of WEIGHTINGS.

    With a solver of order p and the true D, the true map's |x_s - x~_s| falls as h^(p + 1), h the length of the
    interval, and |M - M~| as h^p, since B falls as h. Raises ValueError for numbers of steps that are no powers of two,
    and for an unknown weighting.
    """

    steps: int = 1
    first_steps: int = 8
    weighting: str = "truncated_snr"
    grid: str = "log_snr"
    times: ClassVar[str] = "uniform"
    target_decay: ClassVar[float] = 0.0
    needs_teacher: ClassVar[bool] = True
    sampler: ClassVar[str] = "jump"

    def __post_init__(self) -> None:
        for name in ("steps", "first_steps"):
            value = getattr(self, name)
            if not (isinstance(value, int) and value > 0 and value & (value - 1) == 0):
                raise ValueError(f"{name} = {value}: needs a power of two, as each stage halves the number of steps")
        if self.first_steps < self.steps:
            raise ValueError(f"first_steps = {self.first_steps}: needs at least steps = {self.steps}, where stages end")
        check_choice(self, weighting=WEIGHTINGS)

    def stages(self) -> tuple[Self, ...]:
        """The stages in order, each the method that ends with it: of ``first_steps`` steps, half as many, ..."""
        count = (self.first_steps // self.steps).bit_length()
        return tuple(replace(self, steps=self.first_steps >> k) for k in range(count))

    def sampling_times(self, sde: SDE, grid: Grid) -> Tensor:
        """The times (steps + 1,) between which the student of the last stage jumps."""
        return self._times(sde, grid, self.steps)

    def _times(self, sde: SDE, grid: Grid, steps: int) -> Tensor:
        return grid(sde, 2 * self.first_steps)[:: 2 * self.first_steps // steps]

    def loss(self, student: Any, x0: Tensor, cond: ConditionLike | None, draws: BatchNoise, lesson: Lesson) -> Tensor:
        """As ``Method.loss``, of the last stage; times are uniform over its intervals."""
        x0, sde, asked = as_tensor(x0), student.sde, given("teacher", lesson.teacher)
        times = self._times(sde, given("grid", lesson.grid), 2 * self.steps)
        fraction = (draws.t - sde.t_min) / (sde.t_max - sde.t_min)
        interval = (fraction * self.steps).long().clamp(0, self.steps - 1)
        t, u, s = (times[2 * interval + end] for end in range(3))
        x = cut(sde.perturb(x0, t, draws.noise(x0)), draws.sizes)
        end = asked.solve(asked.solve(x, t, u, cond, draws.sizes), u, s, cond, draws.sizes)
        keep, change = jump_factors(sde, t, s)
        told = combine(1 / change, end, -keep / change, x)
        losses = mean_square(student.mean_denoised(x, t, s, cond) - told, draws.sizes)
        return send(WEIGHTINGS[self.weighting](sde, t, s).to(losses.dtype), losses.device) * losses
