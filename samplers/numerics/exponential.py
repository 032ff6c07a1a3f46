"""Exponential integration: the flow of a polynomial through what the network predicted."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from samplers.numerics.weights import exponential_weights

Level = Any
"""What a process is at a time, as its ``level(t)`` says it: the numbers alpha and sigma."""

Weigh = Callable[[tuple[float, ...], float, float, float], Sequence[float]]
"""Weights of values at nodes (nodes, start, end, rate), as ``exponential_weights`` has them."""


def log_ratio(at: Level) -> float:
    """lambda = log(alpha / sigma), half the log-SNR."""
    # Not 0.5 log_snr, which rounds otherwise: the fits of plans magnify rounding a million times.
    return math.log(at.alpha / at.sigma)


def norm(at: Level) -> float:
    """sqrt(alpha^2 + sigma^2)."""
    return math.hypot(at.alpha, at.sigma)


@dataclass(frozen=True)
class Prediction:
    """What a method interpolates, F = p x + q D, in which coordinate u, and how the flow follows from it:

    d(x / scale) = factor / scale exp(rate (u - u_s)) F du, so that x_s = (scale_s / scale_t) x_t + factor_s integral of
    exp(rate (u - u_s)) F du from u_t to u_s.
    """

    output: Callable[[Level], tuple[float, float]]
    coordinate: Callable[[Level], float]
    scale: Callable[[Level], float]
    factor: Callable[[Level], float]
    rate: float

    def of(self, x: Tensor, denoised: Tensor, at: Level) -> Tensor:
        """F from x and D(x, t), of the shape of x."""
        p, q = self.output(at)
        return denoised if p == 0 else torch.add(p * x, denoised, alpha=q)

    def advance(
        self,
        x: Tensor,
        start: Level,
        end: Level,
        nodes: Sequence[Level],
        outputs: Sequence[Tensor],
        eta: float = 0.0,
        weigh: Weigh = exponential_weights,
    ) -> Tensor:
        """x at ``start`` carried to ``end`` by the flow of the polynomial through ``outputs`` at ``nodes``; ``weigh``
        is its integral, or takes the place of it.

        With ``eta`` the drift is that of the reverse SDE whose diffusion is eta g: F counts 1 + eta^2 times, and for
        the denoised prediction the decay of x is as much faster.
        """
        u = self.coordinate
        excess = eta**2 if self.rate == 1 else 0.0
        weights = weigh(tuple(map(u, nodes)), u(start), u(end), self.rate + excess)
        factor = (1 + eta**2) * self.factor(end)
        x = (self.scale(end) / self.scale(start) * math.exp(-excess * (u(end) - u(start)))) * x
        for weight, output in zip(weights, outputs, strict=True):
            x = torch.add(x, output, alpha=factor * weight)
        return x


PREDICTIONS = {
    "noise": Prediction(
        lambda at: (1 / at.sigma, -at.alpha / at.sigma),
        log_ratio,
        lambda at: at.alpha,
        lambda at: -at.sigma,
        -1.0,
    ),
    "denoised": Prediction(lambda at: (0.0, 1.0), log_ratio, lambda at: at.sigma, lambda at: at.alpha, 1.0),
    "v": Prediction(
        lambda at: (at.alpha / (at.sigma * norm(at)), -norm(at) / at.sigma),
        lambda at: math.atan2(at.sigma, at.alpha),
        norm,
        norm,
        0.0,
    ),
}
"""noise: d(x / alpha) = n d(sigma / alpha), polynomials in lambda = log(alpha / sigma) (Zhang and Chen 2023, eq. 11).
denoised: d(x / sigma) = D d(alpha / sigma), in lambda (Lu et al. 2022b, eq. 8). v = (alpha n - sigma D) / sqrt(alpha^2
+ sigma^2): d(x / sqrt(alpha^2 + sigma^2)) = v d(phi) with the angle phi = atan(sigma / alpha), in phi (Salimans and Ho
2022, appendix D)."""


History = list[tuple[Level, Tensor]]


def remember(carry: History | None, at: Level, output: Tensor, count: int) -> History:
    """The latest ``count`` levels and outputs, newest first."""
    return [(at, output), *(carry or [])][:count]
