"""Conditional score model: a denoiser with its condition bound."""

from torch import Tensor

from sde.condition.binding import bind_condition, expand_rows
from sde.condition.protocol import check_conditional
from sde.condition.tree import ConditionLike
from sde.model.denoiser import Denoiser
from sde.model.score import ScoreModel, parts_of


class Conditional(ScoreModel):
    """A denoiser, or any ConditionalModel of sde.condition.protocol, with its condition bound: D(x, t, cond).

    ``cond`` has one row per sample, or one that serves every sample: tensors, or lists and arrays of numbers; labels
    alone may come without their name. It is checked here, once. Raises ValueError for a model that takes no condition,
    as one that is bound already, or another one.
    """

    with_rows = ("cond",)

    def __init__(self, model: Denoiser, cond: ConditionLike) -> None:
        check_conditional(model)
        super().__init__(*parts_of(model, "Conditional"))
        self.model = model
        self.cond = bind_condition(cond, model)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.model(x, t, expand_rows(self.cond, x))
