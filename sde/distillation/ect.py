"""Easy consistency tuning: consistency training whose pairs of times begin at denoising, and close up."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from sde.condition.tree import ConditionLike
from sde.device import as_tensor, double
from sde.distillation.consistency import WEIGHTINGS, consistency_losses
from sde.distillation.distance import DISTANCES
from sde.distillation.method import Lesson, check_choice, check_range, times_of
from sde.training.loss import BatchNoise


@dataclass(frozen=True)
class EasyConsistency:
    """Consistency training, w d(f(x_t, t) - f^-(x_s, s)) of the jump f to t_min, that begins as denoising: the noise
    levels r = sigma / alpha of a pair close up (Geng et al. 2024, section 3),

        r_s / r_t = 1 - n(r_t) / q^a,    n(r) = 1 + k / (1 + exp(b r)),    a = 1, 2, ..., ``doublings``,

    with q as ``base``, each a for an equal share of the run, and r_s at least that of t_min. r is in units of twice
    sigma_data, which the paper has as 0.5. At a = 1 most pairs have r_s = 0: the loss is that of denoising, which a
    score model has behind it. r_t has the law ``times``.

    ``distance`` is a key of DISTANCES; the slope of pseudo_huber is the adaptive weight 1 / sqrt(|d|^2 + c^2) of the
    paper, with ``huber_c`` as c. ``weighting`` is a key of consistency.WEIGHTINGS. f^- is the student itself without a
    gradient.

    f - f^- keeps a variance; its mean given x_t falls as (r_t - r_s)^2, and so does the expected gradient of the mean
    square. Raises ValueError for unknown names and numbers out of range.
    """

    base: float = 2.0
    k: float = 8.0
    b: float = 1.0
    doublings: int = 8
    distance: str = "pseudo_huber"
    huber_c: float = 0.0
    weighting: str = "relative_gap"
    grid: str = "log_snr"
    times: str = "log_normal"
    time_mean: float = 0.3
    time_std: float = 1.8
    target_decay: ClassVar[float] = 0.0
    needs_teacher: ClassVar[bool] = False
    sampler: ClassVar[str] = "renoise"

    def __post_init__(self) -> None:
        check_choice(self, distance=DISTANCES, weighting=WEIGHTINGS)
        times_of(self)
        check_range(self, 0, math.inf, "k", "b", "huber_c")
        check_range(self, 1, math.inf, "base", "doublings")

    def stages(self) -> tuple[Self, ...]:
        """One."""
        return (self,)

    def gap(self, level: Tensor, progress: float) -> Tensor:
        """1 - r_s / r_t at noise levels r_t (B,) in units of twice sigma_data, where a share of the run in [0, 1) is
        done."""
        a = 1 + int(progress * self.doublings)
        return ((1 + self.k * torch.sigmoid(-self.b * level)) / self.base**a).clamp(max=1)

    def loss(self, student: Any, x0: Tensor, cond: ConditionLike | None, draws: BatchNoise, lesson: Lesson) -> Tensor:
        """As ``Method.loss``."""
        sde, t = student.sde, draws.t
        level, least = sde.noise_level(t), sde.noise_level(double(sde.t_min))
        lower = level * (1 - self.gap(level / (2 * student.sigma_data), lesson.progress))
        s = sde.t_of_noise_level(torch.maximum(lower, least))
        return consistency_losses(self, student, as_tensor(x0), cond, draws, (t, s), target=lesson.target)
