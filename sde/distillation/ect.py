"""Easy consistency tuning: consistency training whose pairs of times close up, from denoising on."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from sde.condition.tree import ConditionLike
from sde.data.sizes import cut
from sde.device import as_tensor, send
from sde.distillation.consistency import same_end
from sde.distillation.distance import pseudo_huber
from sde.distillation.intervals import Grid
from sde.distillation.teacher import Teacher
from sde.training.loss import BatchNoise


@dataclass(frozen=True)
class EasyConsistency:
    final_gap: float = 0.1
    k: float = 8.0
    huber_c: float = 0.0
    gap_power: float = 0.0
    grid: str = "karras"
    times: str = "log_normal"
    target_decay: ClassVar[float] = 0.0
    distilled: bool = False

    @property
    def needs_teacher(self) -> bool:
        return self.distilled

    def stages(self) -> tuple[Self, ...]:
        return (self,)

    def loss(self, student, x0, cond, draws, progress, *, teacher=None, target=None, grid=None) -> Tensor:
        x0, sde = as_tensor(x0), student.sde
        r_t = sde.noise_level(draws.t)
        least = sde.noise_level(torch.tensor(sde.t_min, dtype=torch.float64))
        gap = self.final_gap**progress * (1 + self.k * torch.sigmoid(-r_t / student.sigma_data))
        r_s = torch.maximum(r_t * (1 - gap).clamp(min=0), least)
        t, s = draws.t, sde.t_of_noise_level(r_s)
        z = draws.noise(x0)
        x = cut(sde.perturb(x0, t, z), draws.sizes)
        y = teacher.solve(x, t, s, cond) if teacher is not None else cut(sde.perturb(x0, s, z), draws.sizes)
        difference = same_end(student, ((x, t), (y, s)), torch.full_like(t, sde.t_min), cond, target)
        losses = pseudo_huber(difference, self.huber_c, draws.sizes)
        w = (1 - r_s / r_t).clamp(min=1e-6) ** -1 * r_t ** -self.gap_power
        return send(w.to(losses.dtype), losses.device) * losses
