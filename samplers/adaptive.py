"""Solvers that choose their own steps, for each sample."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from samplers.runge_kutta import integrate
from samplers.step import Result


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
