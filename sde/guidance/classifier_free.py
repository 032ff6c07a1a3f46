"""Classifier-free guidance."""

import torch
from torch import Tensor

from sde.condition.binding import bind_condition, expand_rows
from sde.condition.protocol import check_conditional, kept_of, null_trained
from sde.condition.tree import Condition, ConditionLike, as_tree, is_control, map_condition, null_like
from sde.guidance.base import Guidance, check_scale
from sde.guidance.conditional import Conditional
from sde.model.denoiser import Denoiser, tells_output
from sde.model.score import Terms, parts_of
from sde.process.coefficients import expand


class ClassifierFree(Guidance):
    """Classifier-free guidance: D(x, t, null) + scale (D(x, t, cond) - D(x, t, null)) (Ho and Salimans 2022, eq. 6).

    ``scale`` 1 is the plain conditional model and 0 the unconditional one, each with a single network call; the paper's
    w is scale - 1. A negative scale steers away from the condition. A tensor (B,) has a scale per row. ``negative``
    takes the place of null: a condition to steer away from. Null leaves the controls of a ControlNet as they are (Zhang
    et al. 2023, section 3.4), and kinds that the model names in ``kept``, as the image that a network inpaints, unless
    they are all that there is; a ``negative`` without them has those of ``cond``, too. To guide by them as well, give
    one in which they are null. Both parts run in one batch of twice the size, or with ``batched`` False in two of the
    size of x, which need half the memory. Raises ValueError for a scale that is not finite, which a tensor is not
    asked, as its device would be waited for; for a tensor of another shape; for a scale other than 1 without
    ``negative`` where the model never trained the null condition; for labels that it does not know; and for a model
    that takes no condition, as one that is guided already. The model is a denoiser, or any ConditionalModel of
    sde.condition.protocol.
    """

    base: Conditional
    with_rows = ("base", "negative", "scale")

    def __init__(
        self,
        model: Denoiser,
        cond: ConditionLike,
        scale: float | Tensor,
        negative: ConditionLike | None = None,
        batched: bool = True,
    ) -> None:
        check_conditional(model)
        super().__init__(*parts_of(model, "ClassifierFree"))
        self.model = model
        scale = check_scales(scale) if isinstance(scale, Tensor) else check_scale(scale)
        rows = isinstance(scale, Tensor)
        if (rows or scale != 1) and negative is None and not null_trained(model):
            raise ValueError(
                f"guidance scale {'per row' if rows else scale} needs the unconditional branch, which this model never "
                "trained: train with `cond_dropout` above 0, or use scale 1"
            )
        self.base = Conditional(model, cond)
        self.negative = None if negative is None else bind_condition(self._completed(negative), model)
        self.scale = scale
        self.batched = batched
        self.normalized = not rows and scale in (0, 1)

    def forward(self, x: Tensor, t: Tensor, *, outputs: list[Tensor] | None = None) -> Tensor:
        if not isinstance(self.scale, Tensor) and self.scale == 0:
            alone = self.negative is None and not any(map(self._stays, self.base.cond))
            return self._called(x, t, None if alone else self._other(x, expand_rows(self.base.cond, x)), outputs)
        return self.pair(x, t, outputs)[1]

    def pair(self, x: Tensor, t: Tensor, outputs: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """As of every guidance; ``outputs`` is given the guided F of a denoiser, which D is linear in."""
        cond = expand_rows(self.base.cond, x)
        if not isinstance(self.scale, Tensor) and self.scale == 1:
            denoised = self._called(x, t, cond, outputs)
            return denoised, denoised
        other = self._other(x, cond)
        found: list[Tensor] | None = None if outputs is None else []
        if self.batched:
            both = map_condition(lambda *parts: torch.cat(parts), cond, other)
            twice_t = t if t.ndim == 0 else torch.cat([t, t])
            with_cond, without = self._called(torch.cat([x, x]), twice_t, both, found).chunk(2)
        else:
            with_cond, without = self._called(x, t, cond, found), self._called(x, t, other, found)
        if outputs is not None and found is not None:
            outputs.append(self._guided(*torch.cat(found).chunk(2)))
        return with_cond, self._guided(with_cond, without)

    def _completed(self, negative: ConditionLike) -> Condition:
        """A negative condition, with what stays of cond where it lacks that."""
        tree = as_tree(negative)
        lacking = {kind: c for kind, c in self.base.cond.items() if self._stays(kind) and kind not in tree}
        return type(tree)({**tree, **lacking}) if lacking else tree

    def _other(self, x: Tensor, cond: Condition) -> Condition:
        """The condition of the other branch: ``negative``, or null, with what stays of cond where it has more."""
        if self.negative is not None:
            return expand_rows(self.negative, x)
        return null_like(cond) if all(map(self._stays, cond)) else null_like(cond, self._stays)

    def _stays(self, kind: str) -> bool:
        return is_control(kind) or kind in kept_of(self.model)

    def terms(self, x: Tensor, t: Tensor) -> Terms:
        """As those of the denoiser, where it is one, of its guided output."""
        if not tells_output(self.model):
            return super().terms(x, t)
        outputs: list[Tensor] = []
        self(x, t, outputs=outputs)
        return self.model.terms_of(outputs[0], t)

    def _guided(self, with_cond: Tensor, without: Tensor) -> Tensor:
        scale = self.scale
        if isinstance(scale, Tensor):
            scale = expand(expand_rows(scale, without), without)
        return without + scale * (with_cond - without)

    def _called(self, x: Tensor, t: Tensor, cond: Condition | None, outputs: list[Tensor] | None) -> Tensor:
        return self.model(x, t, cond) if outputs is None else self.model(x, t, cond, outputs=outputs)


def check_scales(scale: Tensor) -> Tensor | float:
    """Guidance scales, one per row; a tensor of one number without rows is that number. Raises ValueError for a tensor
    of another shape."""
    if scale.ndim == 0:
        return check_scale(scale.item())
    if scale.ndim != 1:
        raise ValueError(f"guidance scale of shape {tuple(scale.shape)}: needs a number, or (B,), one per row")
    return scale
