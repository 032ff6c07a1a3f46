"""Classifier-free guidance."""

import torch
from torch import Tensor

from sde.condition.binding import bind_condition, expand_rows
from sde.condition.protocol import check_conditional, null_trained
from sde.condition.tree import ConditionLike, map_condition, null_like
from sde.guidance.base import Guidance, check_scale
from sde.guidance.conditional import Conditional
from sde.model.denoiser import Denoiser
from sde.model.score import parts_of


class ClassifierFree(Guidance):
    """Classifier-free guidance: D(x, t, null) + scale (D(x, t, cond) - D(x, t, null)) (Ho and Salimans 2022, eq. 6).

    ``scale`` 1 is the plain conditional model and 0 the unconditional one, each with a single network call; the paper's
    w is scale - 1. A negative scale steers away from the condition. ``negative``, of the structure of ``cond``, takes
    the place of null: a condition to steer away from. Both parts run in one batch of twice the size, or with
    ``batched`` False in two of the size of x, which need half the memory. Raises ValueError for a scale that is not
    finite, and for one other than 1 without ``negative`` where the model never trained the null condition; for labels
    that it does not know; and for a model that takes no condition, as one that is guided already. The model is a
    denoiser, or any ConditionalModel of sde.condition.protocol.
    """

    base: Conditional
    with_rows = ("base", "negative")

    def __init__(
        self,
        model: Denoiser,
        cond: ConditionLike,
        scale: float,
        negative: ConditionLike | None = None,
        batched: bool = True,
    ) -> None:
        check_conditional(model)
        super().__init__(*parts_of(model, "ClassifierFree"))
        self.model = model
        if scale != 1 and negative is None and not null_trained(model):
            raise ValueError(
                f"guidance scale {scale} needs the unconditional branch, which this model never trained: "
                "train with `cond_dropout` above 0, or use scale 1"
            )
        self.base = Conditional(model, cond)
        self.negative = None if negative is None else bind_condition(negative, model)
        self.scale = check_scale(scale)
        self.batched = batched
        self.normalized = scale in (0, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        if self.scale == 0:
            return self.model(x, t, None if self.negative is None else expand_rows(self.negative, x))
        return super().forward(x, t)

    def pair(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        cond = expand_rows(self.base.cond, x)
        if self.scale == 1:
            denoised = self.model(x, t, cond)
            return denoised, denoised
        other = null_like(cond) if self.negative is None else expand_rows(self.negative, x)
        if self.batched:
            both = map_condition(lambda *parts: torch.cat(parts), cond, other)
            twice_t = t if t.ndim == 0 else torch.cat([t, t])
            with_cond, without = self.model(torch.cat([x, x]), twice_t, both).chunk(2)
        else:
            with_cond, without = self.model(x, t, cond), self.model(x, t, other)
        return with_cond, without + self.scale * (with_cond - without)
