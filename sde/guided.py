"""What every guided model is: a score model beside the one that it is guided away from."""

import abc

from torch import Tensor

from sde.model import ScoreModel


class Guidance(ScoreModel, abc.ABC):
    """A score model that is guided away from another one, its ``base``: the same conditions without guidance.

    A subclass sets ``base`` and defines ``pair``.
    """

    base: ScoreModel
    normalised = False

    @abc.abstractmethod
    def pair(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior means of the base and of the guided model, with no network call made twice."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.pair(x, t)[1]

    def rows(self, index: Tensor | slice) -> "Guidance":
        return self


def base_of(model: ScoreModel) -> ScoreModel:
    """The model without its guidance; one that is not guided itself."""
    return model.base if isinstance(model, Guidance) else model


def pair_of(model: ScoreModel, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The posterior means of ``base_of(model)`` and of the model."""
    if isinstance(model, Guidance):
        return model.pair(x, t)
    denoised = model(x, t)
    return denoised, denoised
