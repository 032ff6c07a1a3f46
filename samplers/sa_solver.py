"""SA-Solver: exponential Adams steps on the reverse SDE."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplers.checks import check_factor, check_integer, choose
from samplers.numerics.exponential import PREDICTIONS, History, log_ratio, remember
from samplers.renamed import renamed_arguments
from samplers.step import Result


@renamed_arguments(points="solver_order")
@dataclass(frozen=True)
class SASolver:
    """Exponential Adams method on the reverse SDE with diffusion eta g (Xue et al. 2023, SA-Solver, section 4).

    ``prediction`` "denoised" with eta 1 is DPM-Solver++ SDE: x_s = (sigma_s / sigma_t) exp(-eta^2 h) x + (1 + eta^2)
    alpha_s integral of exp((1 + eta^2)(u - lambda_s)) P(u) du + sigma_s sqrt(1 - exp(-2 eta^2 h)) z. Here h is the
    step in lambda, and P the polynomial through the last ``solver_order`` denoised values: 2 for 2M, 3 for 3M (whose
    quadratic term is integrated exactly here).

    "noise" is the exponential integrator of SEEDS (Gonzalez et al. 2023): x_s = (alpha_s / alpha_t) x - (1 + eta^2)
    sigma_s integral of exp(lambda_s - u) P(u) du + eta sigma_s sqrt(exp(2h) - 1) z; theirs has ``solver_order`` 1.
    eta 0 is the probability flow. Noise enters at order 1, whatever ``solver_order``. One network call.
    """

    solver_order: int = 2
    prediction: str = "denoised"
    eta: float = 1.0
    order: ClassVar[float] = 1
    steps: ClassVar[int] = 50
    grid: ClassVar[str] = "log_snr"

    def __post_init__(self) -> None:
        check_integer("solver_order", self.solver_order, 1, 4)
        choose("prediction", self.prediction, ("denoised", "noise"))
        check_factor("eta", self.eta)

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry: History | None = None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; one network call."""
        prediction, start, end = PREDICTIONS[self.prediction], model.sde.level(t), model.sde.level(s)
        carry = remember(carry, start, prediction.of(x, model(x, t), start), self.solver_order)
        nodes, outputs = zip(*carry, strict=True)
        moved = prediction.advance(x, start, end, nodes, outputs, self.eta)
        if self.eta == 0:
            return moved, carry
        h = log_ratio(end) - log_ratio(start)
        variance = -math.expm1(-2 * self.eta**2 * h) if prediction.rate == 1 else self.eta**2 * math.expm1(2 * h)
        return torch.add(moved, noise(x), alpha=end.sigma * math.sqrt(variance)), carry
