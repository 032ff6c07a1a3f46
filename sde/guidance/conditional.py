"""Conditional score model: a denoiser with its condition bound."""

from torch import Tensor

from sde.condition.binding import bind_condition, expand_rows
from sde.condition.protocol import check_conditional
from sde.condition.tree import ConditionLike
from sde.model.denoiser import Denoiser, tells_output
from sde.model.score import ScoreModel, Terms, parts_of


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

    def forward(self, x: Tensor, t: Tensor, *, outputs: list[Tensor] | None = None) -> Tensor:
        cond = expand_rows(self.cond, x)
        return self.model(x, t, cond) if outputs is None else self.model(x, t, cond, outputs=outputs)

    def terms(self, x: Tensor, t: Tensor) -> Terms:
        """As those of the denoiser, where it is one."""
        if not tells_output(self.model):
            return super().terms(x, t)
        outputs: list[Tensor] = []
        self(x, t, outputs=outputs)
        return self.model.terms_of(outputs[0], t)
