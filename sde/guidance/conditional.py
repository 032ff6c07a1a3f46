"""Conditional score model: a denoiser with its condition bound."""

from torch import Tensor

from sde.condition.binding import bind_condition, check_unbound, expand_rows
from sde.condition.tree import ConditionLike
from sde.model.denoiser import Denoiser
from sde.model.score import ScoreModel


class Conditional(ScoreModel):
    """A denoiser with its condition bound: D(x, t, cond).

    ``cond`` has one row per sample, or one that serves every sample: tensors, or lists and arrays of numbers; labels
    alone may come without their name. It is checked here, once. Raises ValueError for a model that takes no condition,
    as one that is bound already, or another one.
    """

    with_rows = ("cond",)

    def __init__(self, model: Denoiser, cond: ConditionLike) -> None:
        check_unbound(model)
        super().__init__(model.sde, model.transform)
        self.model = model
        self.cond = bind_condition(cond, model)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.model(x, t, expand_rows(self.cond, x))
