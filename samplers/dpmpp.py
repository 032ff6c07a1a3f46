"""DPM-Solver++: exponential solvers of the probability flow on the denoised prediction."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplers.checks import check_integer
from samplers.deis import ExponentialAdams
from samplers.host import double
from samplers.numerics.exponential import PREDICTIONS, log_ratio
from samplers.renamed import renamed_arguments
from samplers.step import Result

DENOISED = PREDICTIONS["denoised"]


@renamed_arguments(order="solver_order")
@dataclass(frozen=True)
class DPMSolverPP:
    """DPM-Solver++ of order 1 to 3, multistep or ``singlestep`` (Lu et al. 2022b, algorithms 1 and 2, appendix B).

    With lambda = log(alpha / sigma) and h its step, multistep (2M, 3M) takes one network call: 2M is x_s = (sigma_s /
    sigma_t) x - alpha_s (exp(-h) - 1)(D + (D - D') h / (2 h')), D' and h' of the step before; 3M integrates the
    parabola through three D exactly, as ExponentialAdams does. Singlestep remembers nothing and takes ``solver_order``
    calls per step: 2S is the exponential midpoint rule at lambda_t + h / 2; 3S has stages at a third and two thirds of
    h. Order 1 is DDIM.
    """

    solver_order: int = 2
    singlestep: bool = False
    steps: ClassVar[int] = 25
    grid: ClassVar[str] = "log_snr"

    def __post_init__(self) -> None:
        check_integer("solver_order", self.solver_order, 1, 3)

    @property
    def order(self) -> float:
        """That of the solver."""
        return self.solver_order

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; one network call, or ``solver_order`` where singlestep."""
        if self.singlestep:
            return self._stages(model, x, t, s), carry
        if self.solver_order != 2:
            return ExponentialAdams(self.solver_order, "denoised").step(model, x, t, s, noise, carry)
        start, end = model.sde.level(t), model.sde.level(s)
        denoised = direction = model(x, t)
        h = log_ratio(end) - log_ratio(start)
        if carry is not None:
            previous, h_previous = carry
            direction = torch.lerp(previous, denoised, 1 + h / (2 * h_previous))
        x = torch.add((end.sigma / start.sigma) * x, direction, alpha=-end.alpha * math.expm1(-h))
        return x, (denoised, h)

    def _stages(self, model, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        sde = model.sde
        start, end = sde.level(t), sde.level(s)
        denoised = model(x, t)
        nodes, outputs = [start], [denoised]
        for stage in range(1, self.solver_order):
            fraction = stage / self.solver_order
            log_snr = start.log_snr + fraction * (end.log_snr - start.log_snr)
            u = sde.t_of_log_snr(double(log_snr))
            at = sde.level(u)
            inside = model(DENOISED.advance(x, start, at, nodes, outputs), u)
            # Both orders look at the latest stage; 2S at it alone, 3S along the line from the start.
            nodes, outputs = ([at], [inside]) if self.solver_order == 2 else ([start, at], [denoised, inside])
        return DENOISED.advance(x, start, end, nodes, outputs)
