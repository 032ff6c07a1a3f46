"""Solvers of the probability-flow ODE that choose their own steps, for each sample."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.integrate
import torch
from torch import Tensor

from samplers.calls import part
from samplers.checks import NonFiniteError, SampleError, choose
from samplers.host import double
from samplers.numerics.runge_kutta import check_tolerances, integrate
from samplers.padding import real_share
from samplers.step import Result

SOLVERS = ("dopri5", "RK23", "RK45", "DOP853", "Radau", "BDF", "LSODA")


@dataclass(frozen=True)
class ODE:
    """Adaptive solution of the probability-flow ODE (Song et al. 2021, section 4.3).

    ``solver`` "dopri5" is Dormand and Prince's 5(4) pair, on the whole batch with step sizes of each sample's own; a
    step t -> s of the loop starts with the last step sizes of the one before. The others are methods of scipy's
    ``solve_ivp``, an independent reference: one sample at a time, the state in float64 on the CPU, the model called in
    the dtype of x. With each, a sample's value does not depend on its batch-mates. ``rtol`` and ``atol`` bound the
    error of a step, as the root mean square over a sample's entries; ``max_nfe`` the calls of a step of the loop.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    max_nfe: int = 10_000
    solver: str = "dopri5"
    order: ClassVar[float] = 0
    adaptive: ClassVar[bool] = True
    tolerances: ClassVar[tuple[str, ...]] = ("rtol", "atol")
    steps: ClassVar[int] = 1
    grid: ClassVar[str] = "uniform"

    def __post_init__(self) -> None:
        check_tolerances(self.rtol, self.atol, self.max_nfe)
        choose("solver", self.solver, SOLVERS)

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; network calls as needed.

        Raises FloatingPointError where a sample becomes non-finite, ArithmeticError beyond ``max_nfe`` calls.
        """
        if self.solver != "dopri5":
            rows = [self._reference(model, x, row, t.item(), s.item()) for row in range(len(x))]
            return torch.stack(rows), carry

        def velocity(index: Tensor, times: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            with part(model, index, len(x)) as rows:
                return (rows.velocity(state[0], times),)

        solution = integrate(
            velocity, (x,), t.item(), s.item(), rtol=self.rtol, atol=self.atol, max_nfe=self.max_nfe, first_step=carry,
            sigma=model.sde.sigma, share=real_share(model, x),
        )  # fmt: skip
        return solution.state[0], solution.step

    def _reference(self, model, x: Tensor, row: int, t: float, s: float) -> Tensor:
        """One sample's solution (*event) by scipy."""
        nfe = 0

        def velocity(time: float, state: np.ndarray) -> np.ndarray:
            nonlocal nfe
            nfe += 1
            if nfe > self.max_nfe:
                raise SampleError([row], f"took {self.max_nfe} calls and is at t = {time:.6g}: "
                                  f"loosen rtol and atol, or raise max_nfe = {self.max_nfe}")  # fmt: skip
            # Older scipy tries out its first step beyond the end.
            now = double(min(max(time, min(t, s)), max(t, s)))
            with part(model, torch.tensor([row], device="cpu"), len(x)) as one:
                slope = one.velocity(torch.from_numpy(state).to(x).view(1, *x.shape[1:]), now)
            slope = slope.flatten().cpu().double().numpy()
            if not np.isfinite(slope).all():
                where = f"t = {time:.6g}, sigma = {model.sde.sigma(now):.4g}, |x| = {np.linalg.norm(state):.4g}"
                raise NonFiniteError([row], f"became non-finite at {where}: the model's output is not finite there")
            return slope

        start = x[row].flatten().cpu().double().numpy()
        found = scipy.integrate.solve_ivp(velocity, (t, s), start, self.solver, [s], rtol=self.rtol, atol=self.atol)
        if not found.success:
            raise SampleError([row], f"was not solved by {self.solver}: {found.message} Loosen rtol and atol")
        return torch.from_numpy(found.y[:, -1].copy()).to(x).view(x.shape[1:])
