"""Deterministic samplers: solvers of the probability-flow ODE."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from samplers.step import Result


@dataclass(frozen=True)
class Euler:
    """x_s = x + (s - t) velocity(x, t). Order 1."""

    order: ClassVar[float] = 1
    steps: ClassVar[int] = 200
    grid: ClassVar[str] = "log_snr"

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; one network call."""
        return x + (s - t) * model.velocity(x, t), carry


@dataclass(frozen=True)
class Heun:
    """Heun's method on x / alpha as a function of sigma / alpha, whose slope is the predicted noise n:
    x_s / alpha_s = x / alpha_t + (sigma_s / alpha_s - sigma_t / alpha_t) (n(x, t) + n(x', s)) / 2, with x' the Euler
    step (Karras et al. 2022, algorithm 1, without churn; for any SDE). Order 2, two network calls."""

    order: ClassVar[float] = 2
    steps: ClassVar[int] = 25
    grid: ClassVar[str] = "karras"

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; two network calls."""
        sde = model.sde
        scale = (sde.log_alpha(s) - sde.log_alpha(t)).exp()
        change = sde.sigma(s) - scale * sde.sigma(t)
        first = model.noise(x, t)
        second = model.noise(scale * x + change * first, s)
        return scale * x + (0.5 * change) * (first + second), carry
