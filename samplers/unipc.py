"""UniPC: exponential steps, each corrected by the next one's network call."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from samplers.checks import check_integer, choose
from samplers.numerics.exponential import PREDICTIONS, Weigh, remember
from samplers.numerics.weights import exponential_weights
from samplers.renamed import renamed_arguments
from samplers.step import Result


def _half(nodes: tuple[float, ...], start: float, end: float, rate: float, span: float) -> tuple[float, ...]:
    """Exact weights of any number of nodes but two, ``start`` and another: the slope between these counts span / 2,
    that of h = end - start being 1."""
    if len(nodes) != 2:
        return exponential_weights(nodes, start, end, rate)
    (whole,), (other,) = exponential_weights((start,), start, end, rate), (node for node in nodes if node != start)
    slope = 0.5 * span * (end - start) / (other - start)
    return tuple(whole - slope if node == start else slope for node in nodes)


def _bh1(nodes: tuple[float, ...], start: float, end: float, rate: float) -> tuple[float, ...]:
    return _half(nodes, start, end, rate, end - start)


def _bh2(nodes: tuple[float, ...], start: float, end: float, rate: float) -> tuple[float, ...]:
    return _half(nodes, start, end, rate, *exponential_weights((start,), start, end, rate))


WEIGHTS: dict[str, Weigh] = {"exact": exponential_weights, "bh1": _bh1, "bh2": _bh2}
"""What a ``variant`` makes of two values: the integral of the line through them, or, with half the slope, B(h) / 2 of
Zhao et al. 2023: B_1(h) = h, and B_2(h) = e^h - 1, in the integral's own units. Of more values all are the same."""


@renamed_arguments(points="solver_order")
@dataclass(frozen=True)
class UniPC:
    """Predictor and corrector at one network call per step (Zhao et al. 2023, UniPC, algorithms 1 and 2).

    The predictor is ExponentialAdams of ``solver_order`` points. At the next step the network sees the predicted
    state, and its output corrects it: the last step is taken once more, with the polynomial through one point more, the
    new one. The corrected state goes on, with the output at the predicted one, so that the order is ``solver_order`` +
    1. The polynomials are integrated exactly. The ``variant`` "bh1" or "bh2" gives two values, of the predictor of two
    points and of the first corrector, the weights of the paper's and of diffusers' B(h): B / 2 for the slope between
    them, with B_1(h) = h and B_2(h) = e^h - 1; all others are the same. The last state of a run, whose output nobody
    asks for, stays uncorrected.
    """

    solver_order: int = 3
    prediction: str = "denoised"
    variant: str = "exact"
    steps: ClassVar[int] = 20
    grid: ClassVar[str] = "log_snr"

    def __post_init__(self) -> None:
        check_integer("solver_order", self.solver_order, 1, 3)
        choose("prediction", self.prediction, tuple(PREDICTIONS))
        choose("variant", self.variant, tuple(WEIGHTS))

    @property
    def order(self) -> float:
        """That of the corrected states."""
        return self.solver_order + 1

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; one network call."""
        prediction, start, end = PREDICTIONS[self.prediction], model.sde.level(t), model.sde.level(s)
        weigh = WEIGHTS[self.variant]
        before, history = carry or (None, [])
        history = remember(history, start, prediction.of(x, model(x, t), start), self.solver_order + 1)
        if before is not None:
            nodes, outputs = zip(*history, strict=True)
            x = prediction.advance(before, nodes[1], start, nodes, outputs, weigh=weigh)
        nodes, outputs = zip(*history[: self.solver_order], strict=True)
        return prediction.advance(x, start, end, nodes, outputs, weigh=weigh), (x, history)
