"""MeanFlow: the average velocity between two times, by its derivative along the flow."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sde.condition.tree import ConditionLike, null_like
from sde.data.sizes import cut
from sde.device import as_tensor, forked_random, has_float64, send
from sde.distillation.distance import mean_square
from sde.distillation.method import Lesson, check_range, given, times_of, uniforms
from sde.process.base import SDE
from sde.process.coefficients import combine, expand
from sde.training.loss import BatchNoise


@dataclass(frozen=True)
class MeanFlow:
    """The MeanFlow identity (Geng et al. 2025, eq. 6), for M on any Gaussian process.

    On the straight path of the same noise level, rho = sigma / (alpha + sigma), the average velocity is u = (y - M) /
    rho_t with y = x / (alpha + sigma), and u = v - (rho_t - rho_s) du/drho along the flow becomes

        R = (rho_s / rho_t) (M - D) + (rho_t - rho_s) dM/drho = 0,

    which on any process says that x_s = A x_t + B M does not change while x_t goes along the flow, dx = (alpha' D +
    sigma' (x - alpha D) / sigma) dt. The loss is |u - u~|^2 with u~ = u + R / rho_t without a gradient (eq. 9), R with
    x_0 in the place of D, in which it is linear; dM/drho is a derivative in forward mode (eq. 8).

    The losses are divided by (loss + ``adaptive_c``)^``adaptive_power`` without a gradient (appendix B.2). Both times
    are of the law ``times``, and but for a ``jump_share`` of the items s = t, where M = D is learned (section 4.3).
    With ``distilled`` the D is the teacher's. Else guidance is trained in (section 4.2, appendix B.1): D =
    ``guidance_scale`` x_0 + ``guidance_mixing`` M(x, t, t, cond) + (1 - scale - mixing) M(x, t, t, null), guided by
    scale / (1 - mixing).

    Raises ValueError for unknown names and numbers out of range.
    """

    distilled: bool = False
    jump_share: float = 0.5
    adaptive_power: float = 1.0
    adaptive_c: float = 1e-3
    guidance_scale: float = 1.0
    guidance_mixing: float = 0.0
    times: str = "log_normal"
    time_mean: float = 0.3
    time_std: float = 1.8
    grid: str = "log_snr"
    target_decay: ClassVar[float] = 0.0
    sampler: ClassVar[str] = "jump"

    def __post_init__(self) -> None:
        times_of(self)
        check_range(self, 0, 1, "jump_share")
        check_range(self, 0, math.inf, "adaptive_power", "adaptive_c", "guidance_scale")
        if not 0 <= self.guidance_mixing < 1:
            raise ValueError(f"guidance_mixing = {self.guidance_mixing}: needs a number from 0 to below 1")
        if self.distilled and (self.guidance_scale, self.guidance_mixing) != (1, 0):
            raise ValueError(
                f"guidance_scale = {self.guidance_scale} and guidance_mixing = {self.guidance_mixing} with distilled = "
                "True: the teacher is guided by a scale of its own; leave them at 1 and 0"
            )

    @property
    def needs_teacher(self) -> bool:
        return self.distilled

    def stages(self) -> tuple[Self, ...]:
        """One."""
        return (self,)

    def pair(self, sde: SDE, draws: BatchNoise) -> tuple[Tensor, Tensor]:
        """Times t >= s (B,), both of the law ``times``; equal but for a ``jump_share`` of them."""
        other = times_of(self)(sde, uniforms(draws, 1))
        t, s = torch.maximum(draws.t, other), torch.minimum(draws.t, other)
        return t, torch.where(uniforms(draws, 2) < self.jump_share, s, t)

    def loss(self, student: Any, x0: Tensor, cond: ConditionLike | None, draws: BatchNoise, lesson: Lesson) -> Tensor:
        """As ``Method.loss``."""
        x0, sde = as_tensor(x0), student.sde
        t, s = self.pair(sde, draws)
        x = cut(sde.perturb(x0, t, draws.noise(x0)), draws.sizes)
        if self.distilled:
            denoised = given("teacher", lesson.teacher).denoised(x, t, cond, draws.sizes)
        else:
            denoised = cut(self._guided(student, x, t, cond, x0), draws.sizes)
        mean, residual = identity_residual(student, x, t, s, cond, denoised)
        _, rho, _ = straight(sde, t)
        # The gradient of u is that of -M / rho_t, and u - u~ = -R / rho_t.
        difference = expand(1 / rho, x) * (mean - (mean.detach() - residual))
        losses = mean_square(difference, draws.sizes)
        return losses / (losses.detach() + self.adaptive_c) ** self.adaptive_power

    @torch.no_grad()
    def _guided(self, student: Any, x: Tensor, t: Tensor, cond: ConditionLike | None, x0: Tensor) -> Tensor:
        scale, mixing = self.guidance_scale, self.guidance_mixing
        if (scale, mixing) == (1, 0):
            return x0
        null = None if cond is None else null_like(cond)
        with forked_random(x.device):
            denoised = scale * x0 + (1 - scale - mixing) * student.mean_denoised(x, t, t, null)
        with forked_random(x.device):
            return denoised + mixing * student.mean_denoised(x, t, t, cond) if mixing else denoised


def straight(sde: SDE, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """alpha + sigma, rho = sigma / (alpha + sigma) and drho/dt at times (B,)."""
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    total = alpha + sigma
    return total, sigma / total, (sde.sigma_rate(t) * alpha - sigma * sde.alpha_rate(t)) / total**2


def identity_residual(
    student: Any, x: Tensor, t: Tensor, s: Tensor, cond: ConditionLike | None, denoised: Tensor
) -> tuple[Tensor, Tensor]:
    """M(x, t, s), and without a gradient the R of MeanFlow with D = ``denoised``; t, s (B,).

    One forward pass has both: derivatives along (dx/drho, dt/drho) ride on the values.
    """
    sde = student.sde
    # Derivatives would be lost where coefficients travel to the device by themselves.
    t, s = (send(u if has_float64(x.device) else u.float(), x.device) for u in (t, s))
    growth = sde.sigma_rate(t) / sde.sigma(t)
    (_, rho, rate), (_, end, _) = straight(sde, t), straight(sde, s)
    along = combine(growth / rate, x, (sde.alpha_rate(t) - growth * sde.alpha(t)) / rate, denoised)
    with forward_ad.dual_level():
        dual_x, dual_t = forward_ad.make_dual(x, along), forward_ad.make_dual(t, 1 / rate)
        mean, change = forward_ad.unpack_dual(student.mean_denoised(dual_x, dual_t, s, cond))
        mean, change = mean.clone(), change.detach()
    return mean, combine(end / rho, mean.detach() - denoised, rho - end, change)
