"""Guided score models: a model beside the one that it is guided away from."""

import abc
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from sde.model.score import ScoreModel

UNKNOWN_TO_TORCH = re.compile(
    "donated buffer|double backward|not (been )?implemented|[Ii]nference tensor|does not require grad"
)
"""What torch says of derivatives that it cannot take."""


class Guidance(ScoreModel, abc.ABC):
    """A score model that is guided away from another one, its ``base``: the same conditions without guidance.

    A subclass sets ``base`` and defines ``pair``; what of both has rows, ``with_rows`` names.
    """

    base: ScoreModel
    normalized = False

    @abc.abstractmethod
    def pair(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior means of the base and of the guided model, with no network call made twice."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.pair(x, t)[1]


def check_scale(scale: float) -> float:
    """A guidance scale. Raises ValueError unless it is a finite number."""
    if isinstance(scale, str) or not math.isfinite(scale):
        raise ValueError(f"guidance scale {scale!r}: needs a finite number, as 1 for the plain conditional model")
    return scale


@contextmanager
def differentiation(guidance: ScoreModel) -> Iterator[None]:
    """Raises ValueError with the remedy where torch cannot differentiate a model as ``guidance`` has to inside."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        if not UNKNOWN_TO_TORCH.search(reason):
            raise
        raise ValueError(
            f"{type(guidance).__name__} needs derivatives that torch cannot take ({reason}): give it what is not "
            "compiled, was not made in inference mode, and has no fused or hand-written kernels and no no_grad inside"
        ) from error


def base_of(model: ScoreModel) -> ScoreModel:
    """The model without its guidance; one that is not guided itself."""
    return model.base if isinstance(model, Guidance) else model


def pair_of(model: ScoreModel, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The posterior means of ``base_of(model)`` and of the model."""
    if isinstance(model, Guidance):
        return model.pair(x, t)
    denoised = model(x, t)
    return denoised, denoised


def check_guided(guided: ScoreModel, name: str) -> Guidance:
    if not isinstance(guided, Guidance):
        raise ValueError(
            f"{name} around {type(guided).__name__}, which is not guided: needs a Guidance, such as ClassifierFree, "
            "Classifier or Autoguidance"
        )
    return guided
