"""Guidance: score models that wrap score models. Conditions are bound here, so samplers see (x, t) only."""

import torch
from torch import Tensor

from sde.binding import bind_condition, check_unbound, fit, rows_of
from sde.condition import Condition, map_condition, null_like
from sde.gradients import Classifier, LogProbability
from sde.guided import Guidance, base_of, check_scale, pair_of
from sde.limits import DynamicThreshold, GuidanceInterval, Rescaled
from sde.model import Denoiser, ScoreModel
from sde.process import SDE

__all__ = [
    "Autoguidance",
    "Classifier",
    "ClassifierFree",
    "Conditional",
    "DynamicThreshold",
    "Guidance",
    "GuidanceInterval",
    "LogProbability",
    "Rescaled",
]


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


class ClassifierFree(Guidance):
    """Classifier-free guidance: D(x, t, null) + scale (D(x, t, cond) - D(x, t, null)) (Ho and Salimans 2022, eq. 6).

    ``scale`` 1 is the plain conditional model and 0 the unconditional one, each with a single network call; the paper's
    w is scale - 1. A negative scale steers away from the condition. ``negative``, of the structure of ``cond``, takes
    the place of null: a condition to steer away from. Both parts run in one batch of twice the size, or with
    ``batched`` False in two of the size of x, which need half the memory. Raises ValueError for a scale that is not
    finite, for one other than 1 without ``negative`` where the model never trained the null condition, for labels
    that it does not know, and for a model that takes no condition, as one that is guided already.
    """

    base: Conditional

    def __init__(
        self, model: Denoiser, cond: Condition, scale: float, negative: Condition | None = None, batched: bool = True
    ) -> None:
        check_unbound(model)
        super().__init__(model.sde, model.transform)
        self.model = model
        if scale != 1 and negative is None and not model.null_trained:
            raise ValueError(
                f"guidance scale {scale} needs the unconditional branch, which this model never trained: "
                "train with config.training.cond_dropout above 0, or use scale 1"
            )
        self.base = Conditional(model, cond)
        self.negative = None if negative is None else bind_condition(negative, model)
        self.scale = check_scale(scale)
        self.batched = batched
        self.normalised = scale in (0, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        if self.scale == 0:
            return self.model(x, t, None if self.negative is None else fit(self.negative, x))
        return super().forward(x, t)

    def pair(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        cond = fit(self.base.cond, x)
        if self.scale == 1:
            denoised = self.model(x, t, cond)
            return denoised, denoised
        other = null_like(cond) if self.negative is None else fit(self.negative, x)
        if self.batched:
            both = map_condition(lambda *parts: torch.cat(parts), cond, other)
            twice_t = t if t.ndim == 0 else torch.cat([t, t])
            with_cond, without = self.model(torch.cat([x, x]), twice_t, both).chunk(2)
        else:
            with_cond, without = self.model(x, t, cond), self.model(x, t, other)
        return with_cond, without + self.scale * (with_cond - without)

    def rows(self, index: Tensor | slice) -> "ClassifierFree":
        negative = None if self.negative is None else rows_of(self.negative, index)
        return ClassifierFree(self.model, rows_of(self.base.cond, index), self.scale, negative, self.batched)


class Autoguidance(Guidance):
    """Guidance by a weaker version of the model: D_weak + scale (D - D_weak) (Karras et al. 2024, arXiv:2406.02507, eq.
    3 with its w as ``scale``).

    ``weak`` has seen the same data and conditions, with fewer weights or less training, or is a shorter or earlier
    average of them. Scale 1 is the model and 0 the weak one, each in a single call. Either may be guided itself. Raises
    ValueError where the two have another SDE or transform.
    """

    def __init__(self, model: ScoreModel, weak: ScoreModel, scale: float) -> None:
        super().__init__(model.sde, model.transform)
        if not _same_process(model.sde, weak.sde) or model.transform != weak.transform:
            raise ValueError(
                f"the weaker model has {weak.sde} and {weak.transform}, the model {model.sde} and {model.transform}: "
                "autoguidance needs the same of both"
            )
        self.model = model
        self.weak = weak
        self.base = base_of(model)
        self.scale = check_scale(scale)
        self.normalised = (scale == 1 and model.normalised) or (scale == 0 and weak.normalised)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.weak(x, t) if self.scale == 0 else super().forward(x, t)

    def pair(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        base, denoised = pair_of(self.model, x, t)
        if self.scale == 1:
            return base, denoised
        weak = self.weak(x, t)
        return base, weak + self.scale * (denoised - weak)

    def rows(self, index: Tensor | slice) -> "Autoguidance":
        return Autoguidance(self.model.rows(index), self.weak.rows(index), self.scale)


def _same_process(first: SDE, second: SDE) -> bool:
    """Whether alpha and sigma agree: an SDE need not define equality."""
    ends = (first.t_min, first.t_max)
    times = torch.linspace(*ends, 5, dtype=torch.float64)
    return ends == (second.t_min, second.t_max) and all(
        torch.equal(getattr(first, name)(times), getattr(second, name)(times)) for name in ("log_alpha", "sigma")
    )
