"""Gradient guidance: by the gradient of a log-probability."""

import abc
from collections.abc import Callable

import torch
from torch import Tensor

from sde.condition.binding import bind, expand_rows
from sde.condition.tree import ConditionLike
from sde.guidance.base import Guidance, base_of, check_scale, differentiation, pair_of
from sde.model.score import ScoreModel, is_normalized, parts_of
from sde.process.base import with_signal
from sde.process.coefficients import expand

POINTS = ("noisy", "denoised")
"""Where log p(y | .) is evaluated: at x_t, or at the posterior mean D(x_t), through which its gradient then passes."""


class GradientGuidance(Guidance, abc.ABC):
    """Guidance by a gradient: score + scale grad_x log p(y | .) (Song et al. 2021, eq. 14), which in terms of the
    posterior mean is D + scale (sigma^2 / alpha) grad_x log p(y | .).

    ``point`` is one of POINTS. "noisy" is Bayes' rule where p is that of x_t, and its gradient does not pass through
    the network. "denoised" suits p of clean data: log p(y | x_t) is replaced by log p(y | D(x_t)), at the memory of a
    backward pass through the network (Chung et al. 2023, theorem 1).
    """

    def __init__(self, model: ScoreModel, scale: float, point: str) -> None:
        super().__init__(*parts_of(model, type(self).__name__))
        if point not in POINTS:
            raise ValueError(f"point = {point!r}: needs one of {', '.join(POINTS)}")
        self.model = model
        self.base = base_of(model)
        self.scale = check_scale(scale)
        self.point = point
        self.normalized = scale == 0 and is_normalized(model)

    @abc.abstractmethod
    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        """log p(y | x) up to a constant (B,), of x (B, *event) in model units; t () or (B,)."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        # The base of a guided model may take network calls of its own.
        return self._guided(x, t, lambda x, t: (x, self.model(x, t)))[1]

    def pair(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self._guided(x, t, lambda x, t: pair_of(self.model, x, t))

    def _guided(self, x: Tensor, t: Tensor, pair: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]):
        t = with_signal(self.sde, t)
        # A caller that differentiates through the guided model needs the graph of the gradient as well.
        second_order = torch.is_grad_enabled() and x.requires_grad
        if self.point == "noisy":
            base, denoised = pair(x, t)
        with torch.enable_grad(), differentiation(self):
            leaf = x if second_order else x.detach().requires_grad_()
            if self.point == "denoised":
                base, denoised = pair(leaf, t)
            log_prob = self.log_prob(leaf if self.point == "noisy" else denoised, t)
            if log_prob.shape != x.shape[:1] or not log_prob.requires_grad:
                raise ValueError(
                    f"log p(y | x) has shape {tuple(log_prob.shape)} and "
                    f"{'a' if log_prob.requires_grad else 'no'} gradient for x of shape {tuple(x.shape)}: it must "
                    f"have shape ({len(x)},), one value per sample, and depend differentiably on x"
                )
            (gradient,) = torch.autograd.grad(log_prob.sum(), leaf, create_graph=second_order)
        if not second_order:
            base, denoised = base.detach(), denoised.detach()
        at = self.sde.level(t)
        return base, denoised + expand(self.scale * at.sigma**2 / at.alpha, x) * gradient


class LikelihoodGuidance(GradientGuidance):
    """Guidance by any differentiable log p(y | x): ``function(x, t, y)`` -> (B,), up to a constant, in nats.

    x is x_t or with ``point`` "denoised" the posterior mean, in model units; y, a tensor or a dict of tensors, has one
    row per sample, or a single row that serves every sample. The values of one sample must not depend on the others.
    """

    with_rows = ("base", "model", "y")

    def __init__(
        self,
        model: ScoreModel,
        function: Callable[[Tensor, Tensor, ConditionLike], Tensor],
        y: ConditionLike,
        scale: float = 1.0,
        point: str = "noisy",
    ) -> None:
        super().__init__(model, scale, point)
        self.function = function
        self.y = bind(y)

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        return self.function(x, t, expand_rows(self.y, x))
