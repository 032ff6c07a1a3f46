"""Exponential multistep samplers: one network call a step, the earlier ones interpolated."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from samplers.exponential import PREDICTIONS, Level, level
from samplers.noise import check_factor
from samplers.step import Result, check_integer, choose

History = list[tuple[Level, Tensor]]


def _remember(carry: History | None, at: Level, output: Tensor, count: int) -> History:
    """The latest ``count`` levels and outputs, newest first."""
    return [(at, output), *(carry or [])][:count]


@dataclass(frozen=True)
class ExponentialAdams:
    """Exponential Adams-Bashforth on the probability-flow ODE (Zhang and Chen 2023, DEIS, eqs. 14 and 15).

    x_s = (c_s / c_t) x + b_s integral of exp(r (u - u_s)) P(u) du, where P is the polynomial through the last ``order``
    values of the ``prediction``: noise, denoised or v, see PREDICTIONS for c, b, r and u. The integral is exact. One
    network call; the first steps, which have less to look back on, have lower orders, whose error shows at very many
    steps unless they are smaller.
    """

    order: int = 3
    prediction: str = "noise"
    steps: ClassVar[int] = 20
    grid: ClassVar[str] = "log_snr"

    def __post_init__(self) -> None:
        check_integer("order", self.order, 1, 4)
        choose("prediction", self.prediction, tuple(PREDICTIONS))

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry: History | None = None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; one network call."""
        prediction, start, end = PREDICTIONS[self.prediction], level(model.sde, t), level(model.sde, s)
        carry = _remember(carry, start, prediction.of(x, model(x, t), start), self.order)
        nodes, outputs = zip(*carry, strict=True)
        return prediction.advance(x, start, end, nodes, outputs), carry


@dataclass(frozen=True)
class StochasticAdams:
    """Exponential Adams method on the reverse SDE with diffusion eta g (Xue et al. 2023, SA-Solver, section 4).

    ``prediction`` "denoised" with eta 1 is DPM-Solver++ SDE: x_s = (sigma_s / sigma_t) exp(-eta^2 h) x + (1 + eta^2)
    alpha_s integral of exp((1 + eta^2)(u - lambda_s)) P(u) du + sigma_s sqrt(1 - exp(-2 eta^2 h)) z, where h is the
    step in lambda and P the polynomial through the last ``points`` denoised values: 2 for 2M, 3 for 3M (whose quadratic
    term is integrated exactly here). "noise" is the exponential integrator of SEEDS (Gonzalez et al. 2023): x_s =
    (alpha_s / alpha_t) x - (1 + eta^2) sigma_s integral of exp(lambda_s - u) P(u) du + eta sigma_s sqrt(exp(2h) - 1) z.
    eta 0 is the probability flow. However many points, noise enters at order 1. One network call.
    """

    points: int = 2
    prediction: str = "denoised"
    eta: float = 1.0
    order: ClassVar[float] = 1
    steps: ClassVar[int] = 50
    grid: ClassVar[str] = "log_snr"

    def __post_init__(self) -> None:
        check_integer("points", self.points, 1, 4)
        choose("prediction", self.prediction, ("denoised", "noise"))
        check_factor("eta", self.eta)

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry: History | None = None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; one network call."""
        prediction, start, end = PREDICTIONS[self.prediction], level(model.sde, t), level(model.sde, s)
        carry = _remember(carry, start, prediction.of(x, model(x, t), start), self.points)
        nodes, outputs = zip(*carry, strict=True)
        moved = prediction.advance(x, start, end, nodes, outputs, self.eta)
        if self.eta == 0:
            return moved, carry
        h = end.log_ratio - start.log_ratio
        variance = -math.expm1(-2 * self.eta**2 * h) if prediction.rate == 1 else self.eta**2 * math.expm1(2 * h)
        return moved + (end.sigma * math.sqrt(variance)) * noise(x), carry


@dataclass(frozen=True)
class UniPC:
    """Predictor and corrector at one network call a step (Zhao et al. 2023, UniPC, algorithms 1 and 2).

    The predictor is ExponentialAdams of ``points`` points. At the next step the network sees the predicted state, and
    its output corrects it: the last step is taken once more with the polynomial through ``points`` + 1 points, the new
    one among them. The corrected state goes on, with the output at the predicted one, so that the order is ``order`` +
    1. The polynomials are integrated exactly, where the paper's B(h) leaves a choice at order 2; the last state of a
    run, whose output nobody asks for, stays uncorrected.
    """

    points: int = 3
    prediction: str = "denoised"
    steps: ClassVar[int] = 20
    grid: ClassVar[str] = "log_snr"

    def __post_init__(self) -> None:
        check_integer("points", self.points, 1, 3)
        choose("prediction", self.prediction, tuple(PREDICTIONS))

    @property
    def order(self) -> float:
        """That of the corrected states."""
        return self.points + 1

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; one network call."""
        prediction, start, end = PREDICTIONS[self.prediction], level(model.sde, t), level(model.sde, s)
        before, history = carry or (None, [])
        history = _remember(history, start, prediction.of(x, model(x, t), start), self.points + 1)
        if before is not None:
            nodes, outputs = zip(*history, strict=True)
            x = prediction.advance(before, nodes[1], start, nodes, outputs)
        nodes, outputs = zip(*history[: self.points], strict=True)
        return prediction.advance(x, start, end, nodes, outputs), (x, history)
