"""The guided teacher: a denoiser with conditions and a guidance scale for each row of a batch."""

from functools import partial

import torch
from torch import Tensor

from sde.condition.tree import Condition, ConditionLike, as_tree, map_condition, null_like
from sde.distillation.flow_map import split_scale
from sde.model.denoiser import Denoiser
from sde.model.score import ScoreModel
from sde.process.coefficients import expand


class RowGuided(ScoreModel):
    """D(x, t, null) + scale (D(x, t, cond) - D(x, t, null)), as ClassifierFree has it, with a ``scale`` that is a
    number, or (B,): one for each row. cond None is the learned null condition, and so is not guided."""

    def __init__(self, model: Denoiser, cond: Condition | None, scale: Tensor | float = 1.0) -> None:
        super().__init__(model.sde, model.transform)
        self.model, self.cond, self.scale = model, cond, scale

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """D (B, *event) of x (B, *event); t is () or (B,)."""
        if self.cond is None or (isinstance(self.scale, float) and self.scale == 1):
            return self.model(x, t, self.cond)
        both = map_condition(lambda *parts: torch.cat(parts), self.cond, null_like(self.cond))
        twice = t if t.ndim == 0 else torch.cat([t, t])
        told, null = self.model(torch.cat([x, x]), twice, both).chunk(2)
        return null + expand(self.scale, x) * (told - null)


def guided_by_row(model: Denoiser, cond: ConditionLike | None, scale: float) -> RowGuided:
    """The model with conditions of a batch bound, guided by the scale among them, or else by ``scale``."""
    tree, own = split_scale(as_tree(cond))
    return RowGuided(model, tree, float(scale) if own is None else own)


def guided_teacher(model: Denoiser, scale: float = 1.0) -> partial[RowGuided]:
    """What ``SolvedTeacher`` asks for: a function of conditions to the guided model."""
    return partial(guided_by_row, model, scale=scale)
