"""Posteriors given a measurement: score models of p(x_0 | y) for y = A(x_0) + N(0, sigma_y^2 I), what they share."""

import abc
from collections.abc import Callable

import torch
from torch import Tensor

from sde.condition.binding import bind, expand_rows
from sde.guidance.base import Guidance, base_of, differentiation, pair_of
from sde.model.score import ScoreModel, parts_of
from sde.process.base import with_signal
from sde.process.coefficients import expand

Operator = Callable[[Tensor], Tensor]
"""A(x), differentiable, of x (B, *event) in data units; (B, *measurement)."""

Product = Callable[[Tensor], Tensor]
"""A matrix times a vector, for every sample of a batch."""


class Posterior(ScoreModel, abc.ABC):
    """A score model with a measurement y (n or 1, *measurement), in data units; a single row serves every sample. It is
    a tensor, or an array or lists of numbers.

    Raises ValueError for a y that is not finite.
    """

    normalized = False
    with_rows: tuple[str, ...] = ("model", "operator", "y")

    def __init__(self, model: ScoreModel, operator: Operator, y: Tensor) -> None:
        super().__init__(*parts_of(model, type(self).__name__))
        y = bind(y)
        missing = int((~torch.isfinite(y)).sum())
        if missing:
            raise ValueError(
                f"y of shape {tuple(y.shape)} has {missing} values that are not finite: leave out what was not "
                "measured, by a Mask or in the operator"
            )
        self.model = model
        self.operator = operator
        self.y = y

    def predict_measurement(self, x: Tensor) -> Tensor:
        """A(x) of x in model units, where it has the shape of y; ValueError where not.

        Quantized data stand for the cells above them, [x, x + 1): A is of their lower end.
        """
        found = self.operator(self.transform.dequantize(self.transform.decode(x), -0.5))
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        if shape != (len(x), *self.y.shape[1:]):
            # Only rows, as the samples may be a part of those that y was given for.
            raise ValueError(
                f"the operator makes {shape} of x of shape {tuple(x.shape)}, a row of y has shape "
                f"{tuple(self.y.shape[1:])}: y needs a row for each sample, or one for all as y[None], each of the "
                "shape of the operator's output for one sample"
            )
        return found

    def y_for(self, x: Tensor) -> Tensor:
        """y with one row for each of x, in the dtype and on the device of x."""
        return expand_rows(self.y, x).to(x.dtype)


class PosteriorGuidance(Posterior, Guidance):
    """Guidance by the gradient of a Gaussian likelihood of y: D_y = D + (sigma^2 / alpha) J^T H^T V^-1 r.

    H = dA/dx_0 at D in model units, J = dD/dx_t, r = y - A(D), and V, held constant, approximates the covariance of y
    given x_t; subclasses say how V^-1 r is found. ``sigma_y`` is the noise of y in data units. Takes one call of the
    model, and one vector-Jacobian product of it beyond those of V. Raises ValueError for a negative sigma_y.
    """

    with_rows = ("base", "model", "operator", "y")

    def __init__(self, model: ScoreModel, operator: Operator, y: Tensor, sigma_y: float = 0.0) -> None:
        if not sigma_y >= 0:
            raise ValueError(f"sigma_y = {sigma_y}: needs the noise's standard deviation in data units, at least 0")
        super().__init__(model, operator, y)
        self.base = base_of(model)
        self.sigma_y = sigma_y

    @abc.abstractmethod
    def weigh(self, residual: Tensor, t: Tensor, forwards: Product, backwards: Product, through: Product) -> Tensor:
        """V^-1 r, (B, *measurement).

        ``forwards(u)`` = H u, ``backwards(v)`` = H^T v, ``through(v)`` = (sigma^2 / alpha) J^T H^T v.
        """

    def pair(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        t = with_signal(self.sde, t)
        # A caller that differentiates through the guided model needs the graph of the gradient as well.
        graph = torch.is_grad_enabled() and x.requires_grad
        y, at = self.y_for(x), self.sde.level(t)
        factor = at.sigma**2 / at.alpha
        with torch.enable_grad(), differentiation(self):
            leaf = x if graph else x.detach().requires_grad_()
            base, denoised = pair_of(self.model, leaf, t)
            if not denoised.requires_grad:
                raise ValueError(
                    "the model's output has no gradient by x, which guidance by a measurement asks for: leave out "
                    "no_grad, inference_mode and detach in its forward"
                )
            measured = self.predict_measurement(denoised)
            if not measured.requires_grad:
                raise ValueError(
                    "the operator's output does not depend differentiably on x: make it of x by torch's functions, "
                    "without rounding, comparing or detach"
                )

            def forwards(u: Tensor) -> Tensor:
                # H^T v is linear in v: its own transpose, at any v, is H.
                v = torch.zeros_like(measured, requires_grad=True)
                (pulled,) = torch.autograd.grad(measured, denoised, v, create_graph=True)
                return torch.autograd.grad(pulled, v, u, retain_graph=True, create_graph=graph)[0]

            def backwards(v: Tensor, to: Tensor = denoised) -> Tensor:
                return torch.autograd.grad(measured, to, v, retain_graph=True, create_graph=graph)[0]

            def through(v: Tensor) -> Tensor:
                return expand(factor, x) * backwards(v, leaf)

            residual = y - measured
            weights = self.weigh(residual if graph else residual.detach(), t, forwards, backwards, through)
            guided = denoised + through(weights)
        return (base, guided) if graph else (base.detach(), guided.detach())
