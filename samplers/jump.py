"""Jumps of a flow map, each to the next time."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from samplers.protocol import FlowMap
from samplers.step import Result


@dataclass(frozen=True)
class Jump:
    """x_s = F(x, t, s), the flow map itself, from each time of the grid to the next (Geng et al. 2025, eq. 12; of
    progressive students DDIM's step: Salimans and Ho 2022, algorithm 2).

    Deterministic, and without an error of its own: the map of the exact flow is exact on any grid. A run ends with a
    jump to t_min where its grid does not, in the place of the last call of score models.
    """

    asks: ClassVar[type] = FlowMap
    order: ClassVar[float] = 0
    steps: ClassVar[int] = 2
    grid: ClassVar[str] = "uniform"

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; one network call."""
        return model(x, t, s), carry

    def last_call(self, model, x: Tensor, t: Tensor, noise, carry=None) -> Tensor:
        """x (B, *event) at t to the data end: no call at t_min, where x is data already."""
        return to_data(model, x, t)


def to_data(model, x: Tensor, t: Tensor) -> Tensor:
    """x (B, *event) at t to the data end t_min of the process, by one network call where it is not there already."""
    end = t.new_tensor(model.sde.t_min)
    return x if t <= end else model(x, t, end)
