"""What is refused before work is wasted, and failures that name their samples."""

import math
from collections.abc import Sequence
from itertools import chain
from numbers import Integral
from typing import Any, Self

import torch
from torch import Tensor, nn


class SampleError(ArithmeticError):
    """A failure of some samples. ``rows`` are their numbers, in the batch, or in the whole run where that is known."""

    def __init__(self, rows: Sequence[int], what: str) -> None:
        self.rows, self.what = list(rows), what
        names = ", ".join(map(str, self.rows[:8])) + " ..." * (len(self.rows) > 8)
        super().__init__(f"sample{'s' * (len(self.rows) > 1)} {names} {what}")

    def renumbered(self, numbers: Sequence[int]) -> Self:
        """The same failure where row i of the batch is sample ``numbers[i]``; those padded by a sample count once."""
        return type(self)(list(dict.fromkeys(numbers[row] for row in self.rows)), self.what)


class NonFiniteError(SampleError, FloatingPointError):
    """Samples that became infinite or NaN."""


def score_models(model: nn.Module) -> list[nn.Module]:
    """The score models inside a score model, itself among them: modules with an ``sde`` and a ``score``."""
    return [m for m in model.modules() if hasattr(m, "sde") and hasattr(m, "score")]


def tensor_like(model: nn.Module) -> Tensor:
    """A tensor of the dtype and on the device that the model computes in."""
    tensors = chain(model.parameters(), model.buffers())
    return next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))


def check_model(model) -> None:
    """Raise TypeError unless model is a score model, ValueError where it needs a condition and none is bound to it."""
    if not isinstance(model, nn.Module) or not hasattr(model, "sde"):
        raise TypeError(
            f"expected a score model, a torch module with an `sde` that maps (x, t) to a tensor of the "
            f"shape of x; got {type(model).__name__}"
        )
    if not getattr(model, "null_trained", True):
        raise ValueError(
            "the model never trained its unconditional branch: bind a condition to it, as in Conditional(model, labels)"
        )


def check_sampler(sampler) -> None:
    """Raise TypeError unless sampler is an instance with ``step``."""
    if isinstance(sampler, type):
        raise TypeError(f"sampler = {sampler.__name__}: needs an instance, {sampler.__name__}()")
    if not callable(getattr(sampler, "step", None)):
        raise TypeError(f"sampler = {sampler!r}: needs an object with step(model, x, t, s, noise, carry)")


def check_event_shape(model: nn.Module, shape: Sequence[int], name: str = "event_shape") -> None:
    """Raise ValueError unless shape is the one that the model knows of its data, where it knows one."""
    if not isinstance(shape, Sequence) or not shape or not all(isinstance(n, Integral) and n > 0 for n in shape):
        raise ValueError(f"{name} = {shape!r}: needs the sizes of one event, as in (3, 32, 32) or (2,)")
    known: Any = next((m.event_shape for m in score_models(model) if getattr(m, "event_shape", None)), None)
    if known is not None and tuple(shape) != tuple(known):
        raise ValueError(f"{name} = {tuple(shape)}: the model's data have the event shape {tuple(known)}")


def check_state(x: Tensor, model: nn.Module, name: str = "x") -> None:
    """Raise TypeError or ValueError unless x is a finite floating-point batch (B, *event) for the model."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        given = f"dtype {x.dtype}" if isinstance(x, Tensor) else f"type {type(x).__name__}"
        raise TypeError(f"{name} has {given}: needs a floating-point tensor of shape (batch, *event)")
    if x.ndim < 2 or not len(x):
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}: needs (batch, *event) with at least one row and one event dimension; "
            f"{name}[None] makes one event a batch, {name}[:, None] gives numbers an event dimension"
        )
    check_event_shape(model, x.shape[1:], f"{name}.shape[1:]")
    like = next((p for p in model.parameters()), x)
    if like.dtype != x.dtype and like.is_floating_point():
        raise ValueError(f"{name} has dtype {x.dtype}, the model computes in {like.dtype}: convert one of them")
    if not x.isfinite().all():
        rows = (~x.isfinite().flatten(1).all(1)).nonzero().squeeze(1).tolist()
        raise ValueError(f"{name} is not finite in {len(rows)} of {len(x)} rows, the first is row {rows[0]}")


def check_output(module: nn.Module, x: Tensor, output) -> None:
    """Raise TypeError or ValueError where a score model returned anything but one tensor of the shape of x."""
    if not isinstance(output, Tensor):
        inside = f" of {', '.join(type(o).__name__ for o in output)}" if isinstance(output, tuple | list) else ""
        raise TypeError(
            f"{type(module).__name__} returned a {type(output).__name__}{inside} for x of shape {tuple(x.shape)}: "
            "a score model must return one tensor of the shape of x"
        )
    if output.shape != x.shape:
        raise ValueError(
            f"{type(module).__name__} returned shape {tuple(output.shape)} for x of shape {tuple(x.shape)}: "
            "a score model must return one tensor of the shape of x"
        )


def check_finite(x: Tensor, sums: Sequence[Tensor], times: Tensor, steps: int, sde) -> None:
    """Raise NonFiniteError where rows of x are not finite, after a run through ``times`` that was to make ``steps``.

    ``sums``, of x after every step and after the denoising call, tell since when; a step is named with the noise level
    that it started from.
    """
    finite = x.isfinite().flatten(1).all(1)
    if finite.all():
        return
    step = int((~torch.stack(list(sums)).isfinite()).nonzero()[0])
    where = f"step {step + 1} of {steps}" if step < len(times) - 1 else "the last denoising call"
    t = times[step]
    rows = (~finite).nonzero().squeeze(1).tolist()
    raise NonFiniteError(rows, f"became non-finite in {where} (t = {t:.4g}, sigma = {sde.sigma(t):.4g})")


def check_factor(name: str, value: float) -> None:
    """Raises ValueError unless value, a factor on a standard deviation, is finite and not negative."""
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{name} = {value}: needs a number of at least 0")


def choose(name: str, value: str, allowed: Sequence[str]) -> str:
    """value, or a ValueError that names what is allowed."""
    if value not in allowed:
        raise ValueError(f"{name} = {value!r}: needs one of {', '.join(allowed)}")
    return value


def check_integer(name: str, value: int, least: int = 1, most: int | None = None) -> int:
    """value, or a ValueError that says which integers are allowed."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} = {value}: needs an integer {allowed}")
    return int(value)
