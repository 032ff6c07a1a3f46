"""Flow maps: where the probability flow leads from one time to another, learned as one function of both."""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any, Self

from torch import Tensor

from sde.condition.binding import bind_condition, expand_rows
from sde.condition.tree import BoundCondition, Condition, ConditionLike, as_tree
from sde.model.denoiser import Denoiser, Preconditioned, Told
from sde.model.score import StateModel
from sde.networks.further import tell_further
from sde.process.base import SDE, check_time
from sde.process.coefficients import combine
from sde.process.level import Coefficient, Level

GUIDANCE_SCALE = "guidance_scale"
"""Where among its conditions a flow map is told its guidance scale (B,)."""

SCALE = 0.25
"""By what the two further numbers that a network is told are multiplied: log(sigma / alpha) of the level that it jumps
to, and the guidance scale."""


def level_input(end: Level) -> Coefficient:
    """log(sigma / alpha) / 4 of a level, whatever c_noise the network is told of the other one."""
    return -0.5 * SCALE * end.log_snr


class FlowMap(Preconditioned):
    """x_s, the end at time s <= t of the probability flow that begins with x at t: a DDIM step with the mean denoised
    value M along the way in place of D(x, t),

        x_s = (sigma_s / sigma_t) x + (alpha_s - alpha_t sigma_s / sigma_t) M(x, t, s, cond),
        M = c_skip(t) x + c_out(t) F(c_in(t) x, c_noise(t), log(sigma_s / alpha_s) / 4, cond).

    It is x itself at s = t for any network, M(x, t, t) is the posterior mean D(x, t) where the map is exact, and every
    process has one: an average velocity (Geng et al. 2025, eq. 3) and a consistency function (Song et al. 2023, eq. 2,
    with s = t_min) are linear in M. The arguments are those of ``Preconditioned``, for a network that can be told a
    second noise level (sde.networks.further). With ``guidance``, the least and the largest guidance scale, it is told
    that as well (Meng et al. 2023, section 3.1). Raises ValueError for a network that cannot be told.
    """

    def __init__(self, *arguments: Any, guidance: Sequence[float] | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.guidance = None if guidance is None else range_of(guidance)
        tell_further(self.network, 1 if guidance is None else 2)

    @classmethod
    def of(cls, denoiser: Denoiser, guidance: Sequence[float] | None = None) -> Self:
        """A student with the weights of a teacher, a copy of them: M(x, t, s) = D(x, t) until it is trained."""
        return cls(
            copy.deepcopy(denoiser.network),
            denoiser.sde,
            denoiser.parametrization,
            denoiser.sigma_data,
            denoiser.transform,
            denoiser.null_trained,
            denoiser.event_shape,
            denoiser.standardization,
            denoiser.noise_input,
            denoiser.scaled_input,
            denoiser.text,
            guidance=guidance,
        )

    def forward(self, x: Tensor, t: Tensor, s: Tensor, cond: ConditionLike | None = None) -> Tensor:
        """x (B, *event) at t to s <= t, both () or (B,). cond holds one row per sample, None is the learned null
        condition; with ``guidance``, GUIDANCE_SCALE (B,) is among it, ``default_scale`` where it is not."""
        return average_step(self.sde, x, t, s, self.mean_denoised(x, t, s, cond))

    def jump(self, x: Tensor, t: Tensor, s: Tensor, cond: ConditionLike | None = None) -> Tensor:
        """A call of the map, by the name that marks one (samplers.protocol.FlowMap)."""
        return self(x, t, s, cond)

    def mean_denoised(self, x: Tensor, t: Tensor, s: Tensor, cond: ConditionLike | None = None) -> Tensor:
        """M(x, t, s, cond), of the shape of x; arguments are those of ``forward``."""
        check_time(self.sde, s)
        tree, scale = split_scale(as_tree(cond))
        further: list[Told] = [partial(_told, self.sde.level(s))]
        if self.guidance is not None:
            chosen = self.default_scale if scale is None else scale
            further.append(lambda x: SCALE * chosen)
        elif scale is not None:
            raise ValueError(f"{GUIDANCE_SCALE}: this flow map has no guidance scale among its inputs; leave it out")
        return self.denoised(x, t, tree, *further)

    @property
    def default_scale(self) -> float:
        """The guidance scale unless told otherwise: 1, the conditional model, or what is nearest to it of its range."""
        low, high = self.guidance or (1.0, 1.0)
        return min(max(1.0, low), high)

    def bound(self, cond: ConditionLike | None = None, scale: float | None = None) -> "BoundFlowMap":
        """The map with its condition, and its guidance scale, bound."""
        return BoundFlowMap(self, cond, scale)


class BoundFlowMap(StateModel):
    """A flow map with its condition bound, one row per sample or one that serves every sample, and its guidance scale:
    x_s = map(x, t, s, cond). Raises ValueError for a condition that the map does not take, and for a scale that it was
    not trained with."""

    with_rows = ("cond",)

    def __init__(self, model: FlowMap, cond: ConditionLike | None = None, scale: float | None = None) -> None:
        super().__init__(model.sde, model.transform)
        self.model, self.event_shape = model, model.event_shape
        self.null_trained = model.null_trained or cond is not None
        bound = BoundCondition() if cond is None else bind_condition(cond, model)
        if scale is not None:
            check_scale(scale, model)
            bound[GUIDANCE_SCALE] = next(model.parameters()).new_full((1,), scale)
        self.cond = bound or None

    def forward(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """x_s of x (B, *event) at t, both times as FlowMap takes them."""
        return self.model(x, t, s, expand_rows(self.cond, x))

    def jump(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """A call of the map, by the name that marks one (samplers.protocol.FlowMap)."""
        return self(x, t, s)


def split_scale(cond: Condition | None) -> tuple[Condition | None, Tensor | None]:
    """A condition without its guidance scale, and that (B,); None for what is not there."""
    if cond is None or GUIDANCE_SCALE not in cond:
        return cond, None
    rest = type(cond)({kind: value for kind, value in cond.items() if kind != GUIDANCE_SCALE})
    return rest or None, cond[GUIDANCE_SCALE]


def jump_factors(sde: SDE, t: Tensor, s: Tensor) -> tuple[Coefficient, Coefficient]:
    """A and B of a jump x_s = A x_t + B M between times () or (B,): sigma_s / sigma_t, and alpha_s - alpha_t A."""
    start, end = sde.level(t), sde.level(s)
    keep = end.sigma / start.sigma
    return keep, end.alpha - start.alpha * keep


def average_step(sde: SDE, x: Tensor, t: Tensor, s: Tensor, mean_denoised: Tensor) -> Tensor:
    """x_s = (sigma_s / sigma_t) x + (alpha_s - alpha_t sigma_s / sigma_t) M of a Gaussian process."""
    keep, change = jump_factors(sde, t, s)
    return combine(keep, x, change, mean_denoised)


def range_of(guidance: Sequence[float]) -> tuple[float, float]:
    """The least and the largest guidance scale. Raises ValueError unless they are two such numbers."""
    low, high = guidance if len(guidance) == 2 else (1.0, 0.0)
    if not 0 <= low < high < float("inf"):
        raise ValueError(f"guidance = {tuple(guidance)}: needs the least and the largest scale, as (1, 4)")
    return float(low), float(high)


def check_scale(scale: float, model: FlowMap) -> None:
    """Raise ValueError for a guidance scale that a flow map was not trained with."""
    if model.guidance is None:
        raise ValueError(
            f"{GUIDANCE_SCALE} = {scale:g}: this flow map has no guidance scale among its inputs, and the guidance of "
            "the teacher is in its weights; leave it out, or distill with a range of scales"
        )
    low, high = model.guidance
    if not low <= scale <= high:
        raise ValueError(
            f"{GUIDANCE_SCALE} = {scale:g}: this flow map was trained with scales from {low:g} to {high:g}"
        )


def _told(end: Level, x: Tensor) -> Coefficient:
    """What a network is told of the level that it jumps to."""
    return end.on(x, level_input) if isinstance(end.time, float) else level_input(end)
