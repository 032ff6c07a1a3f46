"""Processes of flow matching, whose noise end is open: alpha(1) = 0."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sde.process.base import SDE


@dataclass(frozen=True)
class _Interpolant(SDE):
    """A path from data at t = 0 to noise alone at t = 1. A ``t_max`` below 1 closes the noise end."""

    t_min: float = 1e-3
    t_max: float = 1.0

    @property
    def open_end(self) -> bool:
        return self.t_max >= 1

    @property
    def label(self) -> tuple[str, float]:
        """1000 t."""
        return "time", 1000.0


@dataclass(frozen=True)
class FlowSDE(_Interpolant):
    """The straight path alpha = 1 - t, sigma = t (Lipman et al. 2023, eq. 20 with sigma_min = 0; Liu et al. 2023), with
    data at t = 0: their time is 1 - t. Its velocity is E[z - x_0 | x_t]. A ``t_max`` below 1 closes the noise end."""

    def log_alpha(self, t: Tensor) -> Tensor:
        return torch.log1p(-t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def f(self, t: Tensor) -> Tensor:
        return -1 / (1 - t)

    def g2(self, t: Tensor) -> Tensor:
        return 2 * t / (1 - t)

    def alpha_rate(self, t: Tensor) -> Tensor:
        return torch.full_like(t, -1.0)

    def sigma_rate(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-0.5 * log_snr.double()).clamp(self.t_min, self.t_max)


@dataclass(frozen=True)
class GVPSDE(_Interpolant):
    """The variance-preserving path alpha = cos(pi t / 2), sigma = sin(pi t / 2) of SiT (Ma et al. 2024; Albergo and
    Vanden-Eijnden 2023). A ``t_max`` below 1 closes the noise end."""

    def log_alpha(self, t: Tensor) -> Tensor:
        # The cosine as a sine, which is 0 at t = 1 and not 6e-17.
        return torch.sin(0.5 * math.pi * (1 - t)).log()

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(0.5 * math.pi * t)

    def f(self, t: Tensor) -> Tensor:
        return -0.5 * self.g2(t)

    def g2(self, t: Tensor) -> Tensor:
        return math.pi * torch.sin(0.5 * math.pi * t) / torch.sin(0.5 * math.pi * (1 - t))

    def alpha_rate(self, t: Tensor) -> Tensor:
        return -0.5 * math.pi * self.sigma(t)

    def sigma_rate(self, t: Tensor) -> Tensor:
        return 0.5 * math.pi * self.alpha(t)

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return (2 / math.pi * torch.atan((-0.5 * log_snr.double()).exp())).clamp(self.t_min, self.t_max)
