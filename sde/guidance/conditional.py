"""A denoiser with its condition bound."""

from torch import Tensor

from sde.condition.binding import bind_condition, check_unbound, fit, rows_of
from sde.condition.tree import Condition
from sde.model.denoiser import Denoiser
from sde.model.score import ScoreModel


class Conditional(ScoreModel):
    """A denoiser with its condition bound: D(x, t, cond).

    ``cond`` has a row a sample, or one that serves every sample: tensors, or lists and arrays of numbers. Raises
    ValueError for a model that takes no condition, as one that is bound already, or another one.
    """

    def __init__(self, model: Denoiser, cond: Condition) -> None:
        check_unbound(model)
        super().__init__(model.sde, model.transform)
        self.model = model
        self.cond = bind_condition(cond, model)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.model(x, t, fit(self.cond, x))

    def rows(self, index: Tensor | slice) -> "Conditional":
        return Conditional(self.model, rows_of(self.cond, index))
