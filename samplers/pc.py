"""Predictor-corrector sampling."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from samplers.ancestral import Ancestral
from samplers.langevin import Langevin
from samplers.step import Noise, Result, Sampler, Stepper


@dataclass(frozen=True)
class PredictorCorrector:
    """A predictor step t -> s, then a corrector step at s (Song et al. 2021, algorithm 1).

    The order is the paper's: the corrector acts at the arrival time. The paper's code corrects before it predicts, at
    the departure time, and so never after the last step.
    """

    predictor: Sampler = Ancestral()
    corrector: Stepper = Langevin()
    steps: ClassVar[int] = 100
    grid: ClassVar[str] = "log_snr"

    @property
    def order(self) -> float:
        """That of the predictor, where the corrector is exact."""
        return self.predictor.order

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise: Noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; the predictor's network calls and the corrector's."""
        x, carry = self.predictor.step(model, x, t, s, noise, carry)
        x, _ = self.corrector.step(model, x, s, s, noise)
        return x, carry
