"""Guidance: score models that wrap score models. Conditions are bound here, so samplers see (x, t) only."""

from collections.abc import Callable

import torch
from torch import Tensor

from sde.condition import Condition, check_labels, map_condition, null_like
from sde.model import Denoiser, ScoreModel
from sde.process import expand


def _bind(cond: Condition, num_classes: int | None) -> Condition:
    if isinstance(cond, Tensor) and not cond.is_floating_point():
        check_labels(cond, num_classes)
    return map_condition(lambda c: c[None] if c.ndim == 0 else c, cond)


def _rows(cond: Condition, index: Tensor | slice) -> Condition:
    """Rows of a bound condition; a single row serves every sample."""

    def take(c: Tensor) -> Tensor:
        if len(c) == 1:
            return c
        if isinstance(index, Tensor) and len(index) and int(index.max()) >= len(c):
            raise ValueError(
                f"the condition is bound to {len(c)} samples, {int(index.max()) + 1} are asked for: bind one row a "
                "sample, and for a plan one row a pilot"
            )
        return c[index]

    return map_condition(take, cond)


def _fit(cond: Condition, x: Tensor) -> Condition:
    """The bound condition on the device of x, with one row a sample."""

    def fit(c: Tensor) -> Tensor:
        if len(c) not in (1, len(x)):
            raise ValueError(f"the condition is bound to {len(c)} samples, x has {len(x)}: bind one row a sample")
        return c.to(x.device).expand(len(x), *c.shape[1:])

    return map_condition(fit, cond)


class Conditional(ScoreModel):
    """A denoiser with its condition bound: D(x, t, cond)."""

    def __init__(self, model: Denoiser, cond: Condition) -> None:
        super().__init__(model.sde, model.transform)
        self.model = model
        self.cond = _bind(cond, model.num_classes)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.model(x, t, _fit(self.cond, x))

    def rows(self, index: Tensor | slice) -> "Conditional":
        return Conditional(self.model, _rows(self.cond, index))


class ClassifierFree(ScoreModel):
    """Classifier-free guidance: D(x, t, null) + scale (D(x, t, cond) - D(x, t, null)) (Ho and Salimans 2022, eq. 6).

    ``scale`` 1 is the plain conditional model and 0 the unconditional one, each with a single network call; the paper's
    w is scale - 1. A negative scale steers away from the condition. Both parts run in one batch of twice the size.
    """

    def __init__(self, model: Denoiser, cond: Condition, scale: float) -> None:
        super().__init__(model.sde, model.transform)
        self.model = model
        if scale != 1 and not model.null_trained:
            raise ValueError(
                f"guidance scale {scale} needs the unconditional branch, which this model never trained: "
                "train with config.training.cond_dropout above 0, or use scale 1"
            )
        self.cond = _bind(cond, model.num_classes)
        self.scale = scale
        self.normalised = scale in (0, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        if self.scale == 0:
            return self.model(x, t)
        cond = _fit(self.cond, x)
        if self.scale == 1:
            return self.model(x, t, cond)
        both = map_condition(lambda c, null: torch.cat([c, null]), cond, null_like(cond))
        twice_t = t if t.ndim == 0 else torch.cat([t, t])
        with_cond, without = self.model(torch.cat([x, x]), twice_t, both).chunk(2)
        return without + self.scale * (with_cond - without)

    def rows(self, index: Tensor | slice) -> "ClassifierFree":
        return ClassifierFree(self.model, _rows(self.cond, index), self.scale)


class Classifier(ScoreModel):
    """Classifier guidance: score + scale grad_x log p(y | x_t) (Dhariwal and Nichol 2021, eq. 14; Song et al., eq. 14).

    ``classifier(x, t)`` returns logits (B, classes) at the noise level of t; ``labels`` (B,) or () are the classes
    asked for. ``model`` may itself be guided. In terms of the posterior mean, D + scale (sigma^2 / alpha) grad log p(y
    | x_t).
    """

    def __init__(
        self, model: ScoreModel, classifier: Callable[[Tensor, Tensor], Tensor], labels: Tensor, scale: float = 1.0
    ) -> None:
        super().__init__(model.sde, model.transform)
        self.model = model
        self.classifier = classifier
        self.labels = _bind(labels, getattr(classifier, "num_classes", None) or int(labels.max()) + 1)
        if int(labels.min()) < 0:
            raise ValueError(f"label {int(labels.min())}: a classifier guides towards classes from 0")
        self.scale = scale
        self.normalised = scale == 0 and model.normalised

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        labels = _fit(self.labels, x)
        # A caller that differentiates through the guided model needs the graph of the gradient as well.
        second_order = torch.is_grad_enabled() and x.requires_grad
        with torch.enable_grad():
            leaf = x if second_order else x.detach().requires_grad_()
            log_prob = self.classifier(leaf, t).log_softmax(-1).gather(1, labels[:, None]).sum()
            (gradient,) = torch.autograd.grad(log_prob, leaf, create_graph=second_order)
        factor = self.scale * self.sde.sigma(t) ** 2 / self.sde.alpha(t)
        return self.model(x, t) + expand(factor, x) * gradient

    def rows(self, index: Tensor | slice) -> "Classifier":
        return Classifier(self.model.rows(index), self.classifier, _rows(self.labels, index), self.scale)
