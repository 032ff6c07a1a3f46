"""Variance-preserving and sub-variance-preserving processes."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sde.process.base import SDE
from sde.process.schedule import SCHEDULES, linear_beta, linear_log_alpha, linear_time


def _check_betas(beta_min: float, beta_max: float) -> None:
    if not 0 < beta_min <= beta_max:
        raise ValueError(f"beta_min = {beta_min} and beta_max = {beta_max}: needs 0 < beta_min <= beta_max")


@dataclass(frozen=True)
class VPSDE(SDE):
    """Variance-preserving: sigma^2 = 1 - alpha^2 (Song et al. 2021, eq. 11; Ho et al. 2020 in continuous time).

    ``schedule``: "linear", beta(t) = beta_min + t (beta_max - beta_min) (Song et al., eq. 32); "scaled_linear",
    sqrt(beta) linear (Rombach et al. 2022); "cosine", alpha(t) = cos(a(t)) / cos(a(0)) with offset 0.008 (Nichol and
    Dhariwal 2021, eq. 17), which takes no beta and ends at alpha / sigma = 1e-3 instead of their clipping of beta.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0
    schedule: str = "linear"
    _defaults: ClassVar[tuple[float, float]] = (0.1, 20.0)

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule = {self.schedule!r}: needs one of {', '.join(SCHEDULES)}")
        if self.schedule == "cosine" and (self.beta_min, self.beta_max) != self._defaults:
            raise ValueError("the cosine schedule takes no beta_min or beta_max: leave them out")
        _check_betas(self.beta_min, self.beta_max)
        super().__post_init__()

    def log_alpha(self, t: Tensor) -> Tensor:
        return SCHEDULES[self.schedule].log_alpha(t, self.beta_min, self.beta_max)

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(2 * self.log_alpha(t))).sqrt()

    def f(self, t: Tensor) -> Tensor:
        return -0.5 * self.g2(t)

    def g2(self, t: Tensor) -> Tensor:
        return SCHEDULES[self.schedule].beta(t, self.beta_min, self.beta_max)

    def sigma_rate(self, t: Tensor) -> Tensor:
        return 0.5 * self.g2(t) * self.alpha(t) ** 2 / self.sigma(t)

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        log_alpha = -0.5 * torch.nn.functional.softplus(-log_snr.double())
        time = SCHEDULES[self.schedule].time(log_alpha, self.beta_min, self.beta_max)
        return time.clamp(self.t_min, self.t_max)


@dataclass(frozen=True)
class SubVPSDE(SDE):
    """Sub-variance-preserving with linear beta: sigma = 1 - alpha^2 (Song et al. 2021, eqs. 13 and 29)."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        _check_betas(self.beta_min, self.beta_max)
        super().__post_init__()

    def log_alpha(self, t: Tensor) -> Tensor:
        return linear_log_alpha(t, self.beta_min, self.beta_max)

    def sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(2 * self.log_alpha(t))

    def f(self, t: Tensor) -> Tensor:
        return -0.5 * linear_beta(t, self.beta_min, self.beta_max)

    def g2(self, t: Tensor) -> Tensor:
        return -linear_beta(t, self.beta_min, self.beta_max) * torch.expm1(4 * self.log_alpha(t))

    def sigma_rate(self, t: Tensor) -> Tensor:
        return -2 * self.f(t) * self.alpha(t) ** 2

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        # sigma = 1 - alpha^2 solves snr sigma^2 + sigma - 1 = 0; the root written without cancellation.
        half = 0.5 * log_snr.double()
        sigma = 2 / (1 + (1 + 4 * (2 * half).exp()).sqrt())
        return linear_time(half + sigma.log(), self.beta_min, self.beta_max).clamp(self.t_min, self.t_max)
