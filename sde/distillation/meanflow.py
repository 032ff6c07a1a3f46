"""MeanFlow."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sde.condition.tree import ConditionLike, null_like
from sde.data.sizes import cut
from sde.device import as_tensor, forked_random, has_float64, send
from sde.distillation.distance import mean_square
from sde.distillation.intervals import Grid, uniforms
from sde.distillation.teacher import Teacher
from sde.process.coefficients import combine, expand
from sde.training.loss import TIMES, BatchNoise


@dataclass(frozen=True)
class MeanFlow:
    jump_share: float = 0.5
    adaptive_power: float = 1.0
    adaptive_c: float = 1e-3
    guidance_scale: float = 1.0
    guidance_mixing: float = 0.0
    distilled: bool = False
    times: str = "log_normal"
    grid: str = "uniform"
    target_decay: ClassVar[float] = 0.0

    @property
    def needs_teacher(self) -> bool:
        return self.distilled

    def stages(self):
        return (self,)

    def loss(self, student, x0, cond, draws, progress, *, teacher=None, target=None, grid=None):
        x0, sde = as_tensor(x0), student.sde
        t, s = self.pair(sde, draws)
        x = cut(sde.perturb(x0, t, draws.noise(x0)), draws.sizes)
        denoised = self._denoised(student, x, t, cond, x0, teacher)
        t, s = (on(u, x.device) for u in (t, s))
        mean, change = along_flow(student, x, t, s, cond, denoised)
        rho_t, rho_s = (1 / (1 + 1 / sde.noise_level(u)) for u in (t, s))
        kept = mean.detach()
        residual = combine(rho_s / rho_t, kept - denoised, rho_t - rho_s, change)
        error = mean_square(expand(1 / rho_t, x) * (mean - (kept - residual)), draws.sizes)
        return error / (error.detach() + self.adaptive_c) ** self.adaptive_power

    def pair(self, sde, draws):
        other = TIMES[self.times](sde, uniforms(draws, 1).clamp(1e-12, 1 - 1e-12))
        t, s = torch.maximum(draws.t, other), torch.minimum(draws.t, other)
        return t, torch.where(uniforms(draws, 2) < self.jump_share, s, t)

    def _denoised(self, student, x, t, cond, x0, teacher):
        if teacher is not None:
            return teacher.denoised(x, t, cond)
        if self.guidance_scale == 1 and self.guidance_mixing == 0:
            return x0
        return x0


def on(t, device):
    return send(t if has_float64(device) else t.float(), device)


def along_flow(student, x, t, s, cond, denoised):
    sde = student.sde
    at = sde.level(t)
    rate = 0.5 * at.g2 / at.sigma**2
    rho = 1 / (1 + 1 / at.noise_level)
    slope = 1 / (rho * (1 - rho))
    move = combine(slope * (at.f / rate + 1), x, -slope * at.alpha, denoised)
    with forward_ad.dual_level():
        dual_x, dual_t = forward_ad.make_dual(x, move), forward_ad.make_dual(t, slope / rate)
        mean, change = forward_ad.unpack_dual(student.mean_denoised(dual_x, dual_t, s, cond))
    return mean, change.detach()
