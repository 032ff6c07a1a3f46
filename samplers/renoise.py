"""Jumps of a flow map to the data, with noise added again."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplers.jump import to_data
from samplers.numerics.transition import alpha_ratio, forward_variance, root
from samplers.protocol import FlowMap
from samplers.step import Noise, Result


@dataclass(frozen=True)
class Renoise:
    """Multistep consistency sampling: jump to the data, x_min = F(x, t, t_min), and add noise again up to s,

        x_s = (alpha_s / alpha_min) x_min + sqrt(sigma_s^2 - (alpha_s / alpha_min)^2 sigma_min^2) z

    (Song et al. 2023, algorithm 1, for any alpha). The law of x_s is exact where the map is, on any grid; a sample
    changes with its noise. One step is a single jump.
    """

    asks: ClassVar[type] = FlowMap
    order: ClassVar[float] = 0
    steps: ClassVar[int] = 2
    grid: ClassVar[str] = "uniform"

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise: Noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; one network call."""
        x, end = to_data(model, x, t), t.new_tensor(model.sde.t_min)
        if s <= end:
            return x, carry
        data, arrival = model.sde.level(end), model.sde.level(s)
        std = root(forward_variance(arrival, data))
        return torch.add(alpha_ratio(arrival, data) * x, noise(x), alpha=std), carry

    def last_call(self, model, x: Tensor, t: Tensor, noise: Noise, carry=None) -> Tensor:
        """x (B, *event) at t to the data end: no call at t_min, where x is data already."""
        return to_data(model, x, t)
