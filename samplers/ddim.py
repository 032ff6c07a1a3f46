"""DDIM."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplers.numerics.rows import add, scaled
from samplers.numerics.transition import posterior_variance, root
from samplers.step import Result


@dataclass(frozen=True)
class DDIM:
    """x_s = alpha_s D + sqrt(sigma_s^2 - eta^2 v) n + eta sqrt(v) z (Song, Meng and Ermon 2021, eqs. 12 and 16).

    n is the predicted noise and v the posterior variance. ``eta`` 0 is deterministic, the exponential Euler step of the
    probability-flow ODE; 1 is ancestral sampling. Order 1.
    """

    eta: float = 0.0
    order: ClassVar[float] = 1
    steps: ClassVar[int] = 50
    grid: ClassVar[str] = "log_snr"

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta = {self.eta}: needs a number from 0 (deterministic) to 1 (ancestral)")

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d, or with eta = 0 (B,), a time per sample; one network call."""
        start, end = model.sde.level(t), model.sde.level(s)
        added = self.eta**2 * posterior_variance(start, end) if self.eta else 0.0
        # n = (x - alpha_t D) / sigma_t, written into the factors of x and D.
        keep = root(end.sigma**2 - added) / start.sigma
        x = add(scaled(x, keep), model(x, t), end.alpha - keep * start.alpha)
        return (torch.add(x, noise(x), alpha=root(added)) if self.eta else x), carry
