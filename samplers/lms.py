"""Linear multistep: Adams-Bashforth steps on the probability flow, in sigma / alpha."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplers.checks import check_integer
from samplers.numerics.exponential import History, remember
from samplers.numerics.transition import alpha_ratio
from samplers.numerics.weights import exponential_weights
from samplers.step import Noise, Result


@dataclass(frozen=True)
class LMS:
    """The Adams-Bashforth method on x / alpha as a function of r = sigma / alpha, whose slope is the predicted noise n
    (Hairer, Norsett and Wanner 1993, section III.1, on any grid; k-diffusion's sample_lms):

    x_s / alpha_s = x / alpha_t + integral of P(r) dr from r_t to r_s, with P the polynomial through the last
    ``solver_order`` values of n. The integral is exact. One network call. The first steps have less to look back on and
    lower orders.

    With ``to_zero``, the denoising at the end is one more step of the method, to r = 0. Without, it is the posterior
    mean, as of all other samplers: the step of order 1.
    """

    solver_order: int = 4
    to_zero: bool = True
    steps: ClassVar[int] = 25
    grid: ClassVar[str] = "karras"

    def __post_init__(self) -> None:
        check_integer("solver_order", self.solver_order, 1, 4)

    @property
    def order(self) -> float:
        """That of the solver."""
        return self.solver_order

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise: Noise, carry: History | None = None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; one network call."""
        start, end = model.sde.level(t), model.sde.level(s)
        carry = remember(carry, start, model.noise(x, t), self.solver_order)
        x = alpha_ratio(end, start) * x
        return _integrated(x, carry, end.noise_level, end.alpha), carry

    def last_call(self, model, x: Tensor, t: Tensor, noise: Noise, carry: History | None = None) -> Tensor:
        """The data from x (B, *event) at a run's last time t, 0-d; one network call."""
        if not self.to_zero:
            return model.sde.last_call(model, x, t, noise)
        at = model.sde.level(t)
        history = remember(carry, at, model.noise(x, t), self.solver_order)
        return _integrated(x / at.alpha, history, 0.0, 1.0)


def _integrated(x: Tensor, history: History, end: float, factor: float) -> Tensor:
    """x + factor times the integral of the polynomial through ``history`` from its latest level to r = ``end``."""
    nodes = tuple(level.noise_level for level, _ in history)
    for weight, (_, noise) in zip(exponential_weights(nodes, nodes[0], end, 0.0), history, strict=True):
        x = torch.add(x, noise, alpha=factor * weight)
    return x
