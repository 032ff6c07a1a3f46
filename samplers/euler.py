"""Euler's method on the probability flow."""

from dataclasses import dataclass
from typing import ClassVar

import torch
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
        return torch.add(x, model.velocity(x, t), alpha=s.item() - t.item()), carry
