"""Deterministic samplers: solvers of the probability-flow ODE."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplers.runge_kutta import integrate
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


@dataclass(frozen=True)
class ODE:
    """Adaptive solution of the probability-flow ODE (Song et al. 2021, section 4.3) by Dormand-Prince 5(4).

    Every sample has its own step sizes, so that its value does not depend on its batch-mates; a step t -> s of the loop
    starts with the last step sizes of the one before.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    max_nfe: int = 10_000
    order: ClassVar[float] = 0
    steps: ClassVar[int] = 1
    grid: ClassVar[str] = "uniform"

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; network calls as needed."""

        def velocity(index: Tensor, times: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            rows = model if len(index) == len(x) else model.rows(index)
            return (rows.velocity(state[0], times),)

        solution = integrate(
            velocity, (x,), t.item(), s.item(), rtol=self.rtol, atol=self.atol, max_nfe=self.max_nfe, first_step=carry
        )
        return solution.state[0], solution.step
