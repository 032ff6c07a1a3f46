"""Solvers of the reverse-time SDE."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from samplers.step import Result


@dataclass(frozen=True)
class EulerMaruyama:
    """x_s = x + (f x - g^2 score)(s - t) + sqrt(g^2 (t - s)) z, the reverse SDE (Song et al. 2021, eq. 6). Order 1."""

    order: ClassVar[float] = 1
    steps: ClassVar[int] = 500
    grid: ClassVar[str] = "uniform"

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; one network call."""
        f, g2 = model.sde.f(t), model.sde.g2(t)
        mean = (1 + f * (s - t)) * x + (g2 * (t - s)) * model.score(x, t)
        return mean + (g2 * (t - s)).sqrt() * noise(x), carry
