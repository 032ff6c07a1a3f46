"""Exponential multistep samplers."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplers.step import Result


@dataclass(frozen=True)
class DPMpp:
    """DPM-Solver++ 2M (Lu et al. 2022b, algorithm 2): the exponential multistep method of order 2 on D.

    x_s = (sigma_s / sigma_t) x + alpha_s (1 - exp(-h)) (D + (D - D_previous) h / (2 h_previous)), where h is the step
    in log(alpha / sigma). The first step has order 1. One network call; the previous D and time travel in carry.
    """

    order: ClassVar[float] = 2
    steps: ClassVar[int] = 25
    grid: ClassVar[str] = "log_snr"

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; one network call."""
        sde = model.sde
        denoised = direction = model(x, t)
        h = (sde.log_snr(s) - sde.log_snr(t)) / 2
        if carry is not None:
            previous, h_previous = carry
            direction = denoised + (h / (2 * h_previous)) * (denoised - previous)
        x = (sde.sigma(s) / sde.sigma(t)) * x - (sde.alpha(s) * torch.expm1(-h)) * direction
        return x, (denoised, h)
