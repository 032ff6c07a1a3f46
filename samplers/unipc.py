"""UniPC: exponential steps, each corrected by the next one's network call."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from samplers.checks import check_integer, choose
from samplers.numerics.exponential import PREDICTIONS, remember
from samplers.renamed import renamed_arguments
from samplers.step import Result


@renamed_arguments(points="solver_order")
@dataclass(frozen=True)
class UniPC:
    """Predictor and corrector at one network call per step (Zhao et al. 2023, UniPC, algorithms 1 and 2).

    The predictor is ExponentialAdams of ``solver_order`` points. At the next step the network sees the predicted
    state, and its output corrects it: the last step is taken once more, with the polynomial through one point more, the
    new one. The corrected state goes on, with the output at the predicted one, so that the order is ``solver_order`` +
    1. The polynomials are integrated exactly, where the paper's B(h) leaves a choice at order 2; the last state of a
    run, whose output nobody asks for, stays uncorrected.
    """

    solver_order: int = 3
    prediction: str = "denoised"
    steps: ClassVar[int] = 20
    grid: ClassVar[str] = "log_snr"

    def __post_init__(self) -> None:
        check_integer("solver_order", self.solver_order, 1, 3)
        choose("prediction", self.prediction, tuple(PREDICTIONS))

    @property
    def order(self) -> float:
        """That of the corrected states."""
        return self.solver_order + 1

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; one network call."""
        prediction, start, end = PREDICTIONS[self.prediction], model.sde.level(t), model.sde.level(s)
        before, history = carry or (None, [])
        history = remember(history, start, prediction.of(x, model(x, t), start), self.solver_order + 1)
        if before is not None:
            nodes, outputs = zip(*history, strict=True)
            x = prediction.advance(before, nodes[1], start, nodes, outputs)
        nodes, outputs = zip(*history[: self.solver_order], strict=True)
        return prediction.advance(x, start, end, nodes, outputs), (x, history)
