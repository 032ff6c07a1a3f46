"""The variance-exploding process."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sde.process.base import SDE


@dataclass(frozen=True)
class VESDE(SDE):
    """Variance-exploding: alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t (Song et al. 2021, eq. 30)."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_min: float = 0.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"sigma_min = {self.sigma_min}, sigma_max = {self.sigma_max}: needs 0 < sigma_min < sigma_max"
            )
        super().__post_init__()

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    @property
    def label(self) -> tuple[str, float]:
        """log sigma."""
        return "log_noise_level", 1.0

    def log_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * (self._log_ratio * t).exp()

    def f(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def g2(self, t: Tensor) -> Tensor:
        return 2 * self._log_ratio * self.sigma(t) ** 2

    def sigma_rate(self, t: Tensor) -> Tensor:
        return self._log_ratio * self.sigma(t)

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        t = (-0.5 * log_snr.double() - math.log(self.sigma_min)) / self._log_ratio
        return t.clamp(self.t_min, self.t_max)
