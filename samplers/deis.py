"""DEIS: exponential Adams-Bashforth steps on the probability flow."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from samplers.checks import check_integer, choose
from samplers.numerics.exponential import PREDICTIONS, History, remember
from samplers.renamed import renamed_arguments
from samplers.step import Result


@renamed_arguments(order="solver_order")
@dataclass(frozen=True)
class ExponentialAdams:
    """Exponential Adams-Bashforth on the probability-flow ODE (Zhang and Chen 2023, DEIS, eqs. 14 and 15).

    x_s = (c_s / c_t) x + b_s integral of exp(r (u - u_s)) P(u) du, where P is the polynomial through the last
    ``solver_order`` values of the ``prediction``: noise, denoised or v, see PREDICTIONS for c, b, r and u. The integral
    is exact. One network call. The first steps have less to look back on and lower orders, whose error shows at very
    many steps unless they are smaller.
    """

    solver_order: int = 3
    prediction: str = "noise"
    steps: ClassVar[int] = 20
    grid: ClassVar[str] = "log_snr"

    def __post_init__(self) -> None:
        check_integer("solver_order", self.solver_order, 1, 4)
        choose("prediction", self.prediction, tuple(PREDICTIONS))

    @property
    def order(self) -> float:
        """That of the solver."""
        return self.solver_order

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry: History | None = None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; one network call."""
        prediction, start, end = PREDICTIONS[self.prediction], model.sde.level(t), model.sde.level(s)
        carry = remember(carry, start, prediction.of(x, model(x, t), start), self.solver_order)
        nodes, outputs = zip(*carry, strict=True)
        return prediction.advance(x, start, end, nodes, outputs), carry
