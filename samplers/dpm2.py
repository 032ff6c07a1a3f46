"""DPM-Solver-2: the midpoint rule on the probability flow, with the middle in log(sigma / alpha)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplers.host import double
from samplers.numerics.transition import alpha_ratio
from samplers.step import Result


@dataclass(frozen=True)
class DPMSolver2:
    """The midpoint rule on x / alpha as a function of sigma / alpha, whose slope is the predicted noise n:
    x_s / alpha_s = x / alpha_t + (sigma_s / alpha_s - sigma_t / alpha_t) n(x', u), with x' the Euler step to the time u
    in the middle of log(sigma / alpha) (Lu et al. 2022a, DPM-Solver, algorithm 1). Order 2, two network calls.

    It remembers nothing. The network is called at t and at u, not at s as by Heun.
    """

    order: ClassVar[float] = 2
    steps: ClassVar[int] = 25
    grid: ClassVar[str] = "karras"

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; two network calls."""
        sde = model.sde
        start, end = sde.level(t), sde.level(s)
        u = sde.t_of_log_snr(double((start.log_snr + end.log_snr) / 2))
        middle = sde.level(u)
        first = model.noise(x, t)
        scale = alpha_ratio(middle, start)
        inside = model.noise(torch.add(scale * x, first, alpha=middle.sigma - scale * start.sigma), u)
        scale = alpha_ratio(end, start)
        return torch.add(scale * x, inside, alpha=end.sigma - scale * start.sigma), carry
