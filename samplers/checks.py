"""Checks: what is refused before work is wasted, and failures that name their samples."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from numbers import Integral
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from samplers.host import as_tensor
from samplers.protocol import (
    FlowMap,
    GaussianProcess,
    Process,
    ScoreModel,
    asks_of,
    is_flow_map,
    missing,
    needs_of,
    transform_of,
)


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
    """The score models inside a score model, itself among them: modules with an ``sde`` and ``rows``."""
    return [m for m in model.modules() if hasattr(m, "sde") and hasattr(m, "rows")]


def tensor_like(model: nn.Module) -> Tensor:
    """A tensor of the dtype and on the device that the model computes in: one of its own, or where it has none one of
    its transform, which may compute in another dtype. A network of half precision that ``casts`` is told states of
    float32, and brings them to its own dtype itself."""
    everything = chain(model.parameters(), model.buffers())
    tensors = chain(_own(model, model.parameters()), _own(model, model.buffers()), everything)
    found = next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0, device="cpu"))
    casts = found.dtype.itemsize < 4 and any(getattr(module, "casts", False) for module in model.modules())
    return found.new_empty(0, dtype=torch.float32) if casts else found


def _own(model: nn.Module, tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """Those of the tensors of a model that are none of its transform's."""
    transform = transform_of(model)
    others: set[int] = set()
    if isinstance(transform, nn.Module):
        others = {*map(id, transform.parameters()), *map(id, transform.buffers())}
    return (tensor for tensor in tensors if id(tensor) not in others)


def check_process(process, needs: type, who: str) -> None:
    """Raise TypeError unless a process has what ``needs``, a protocol, asks; ``who`` asks for it."""
    lacking = missing(process, needs)
    if lacking:
        raise TypeError(
            f"{who}: works on a {needs.__name__}, and {type(process).__name__} has no {', '.join(lacking)}; take "
            "another that asks less (see samplers.protocol)"
        )


def check_model(model, needs: type = Process, who: str = "a score model", kind: type = ScoreModel) -> None:
    """Raise TypeError unless model is of the kind, ScoreModel or FlowMap, and its process has what ``needs`` asks,
    ValueError where it needs a condition and none is bound to it. ``who`` asks, for the message."""
    if not isinstance(model, nn.Module) or not hasattr(model, "sde"):
        raise TypeError(
            f"expected a score model, a torch module with an `sde` that maps (x, t) to a tensor of the "
            f"shape of x; got {type(model).__name__}"
        )
    check_process(model.sde, needs, who)
    gaussian = not missing(model.sde, GaussianProcess)
    if kind is FlowMap:
        needed, protocol = ["rows", "jump"], "FlowMap"
    else:
        needed = ["rows", *(["score", "noise", "velocity"] if gaussian else [])]
        protocol = "GaussianScoreModel" if gaussian else "ScoreModel"
    lacking = [name for name in needed if not hasattr(model, name)]
    if lacking and kind is ScoreModel and is_flow_map(model):
        raise TypeError(
            f"{who}: {type(model).__name__} is a flow map, which jumps from one time to another and has no score; take "
            "Jump() or Renoise() to sample it, and for all else the score model that it was distilled from"
        )
    if lacking:
        what = "flow map" if kind is FlowMap else "score model"
        raise TypeError(
            f"{type(model).__name__} has an `sde` but no {', '.join(lacking)}: a {what} needs the members of "
            f"samplers.protocol.{protocol}"
        )
    if not getattr(model, "null_trained", True):
        raise ValueError(
            "the model never trained its unconditional branch: bind a condition to it, as in Conditional(model, labels)"
        )


def check_sampled(model, sampler) -> None:
    """``check_model`` and ``check_sampler`` of a run: the model is of the kind that the sampler asks for."""
    if isinstance(sampler, type) or not callable(getattr(sampler, "step", None)):
        check_sampler(sampler, None)
    name, kind = type(sampler).__name__, asks_of(sampler)
    if kind is FlowMap and not is_flow_map(model) and hasattr(model, "sde"):
        raise TypeError(
            f"sampler = {name}: asks for a flow map, with jump(x, t, s) -> x_s, as distillation trains, and "
            f"{type(model).__name__} has none: take a sampler of score models, as DPMSolverPP()"
        )
    check_model(model, who="a score model" if kind is FlowMap else f"sampler = {name}", kind=kind)
    check_sampler(sampler, model.sde)


def check_sampler(sampler, process) -> None:
    """Raise TypeError unless sampler is an instance with ``step`` that suits the process."""
    if isinstance(sampler, type):
        raise TypeError(f"sampler = {sampler.__name__}: needs an instance, {sampler.__name__}()")
    if not callable(getattr(sampler, "step", None)):
        raise TypeError(f"sampler = {sampler!r}: needs an object with step(model, x, t, s, noise, carry)")
    check_process(process, needs_of(sampler), f"sampler = {type(sampler).__name__}")


def check_event_shape(model: nn.Module, shape: Sequence[int], name: str = "event_shape") -> None:
    """Raise ValueError unless shape is the one that the model knows of its data, where it knows one."""
    _check_sizes(shape, name)
    known = _known_shape(model)
    if known is not None and tuple(shape) != known:
        raise ValueError(f"{name} = {tuple(shape)}: the model's data have the event shape {known}")


def _check_sizes(shape: Sequence[int], name: str) -> None:
    if not isinstance(shape, Sequence) or not shape or not all(isinstance(n, Integral) and n > 0 for n in shape):
        raise ValueError(f"{name} = {shape!r}: needs the sizes of one event, as in (3, 32, 32) or (2,)")


def _known_shape(model: nn.Module) -> tuple[int, ...] | None:
    shapes: list[Any] = [getattr(m, "event_shape", None) for m in score_models(model)]
    return next((tuple(shape) for shape in shapes if shape), None)


def as_states(x, model: nn.Module, name: str = "x") -> Tensor:
    """x as a tensor; an array, or numbers in lists, in the dtype of states and on the device of the model."""
    found, like, sde = as_tensor(x, name), tensor_like(model), cast(Any, model.sde)
    return found if isinstance(x, Tensor) else found.to(like.device, sde.state_dtype(like.dtype))


def encoded(model: nn.Module, x: Tensor) -> Tensor:
    """x (B, *event) in data units as the model's transform encodes it; on the device of the model, where x needs
    float64 and may lie on the CPU because that device has none."""
    z = transform_of(model).encode(x)
    return z.to(tensor_like(model).device) if x.dtype == torch.float64 != z.dtype else z


def check_data(x: Tensor, model: nn.Module, name: str = "x") -> None:
    """Raise TypeError or ValueError unless x is a finite batch (B, *event) in data units, of the dtype of states, or of
    float64 where the transform centers data far from zero in it."""
    _check_batch(x, model, name)
    check_event_shape(model, x.shape[1:], f"{name}.shape[1:]")
    if x.dtype != torch.float64 or data_dtype(model, torch.float32) != torch.float64:
        _check_dtype(x, model, name)
    _check_rows(x, x.isfinite().flatten(1).all(1), model, name)


def data_dtype(model: nn.Module, usual: torch.dtype) -> torch.dtype:
    """The type of the model's data: float64 where its transform says that they are ``far`` from zero, else as usual."""
    return torch.float64 if getattr(transform_of(model), "far", False) else usual


def check_state(x: Tensor, model: nn.Module, name: str = "x") -> None:
    """Raise TypeError or ValueError unless x (B, *inner) is a batch of states of the model's process, in model
    units."""
    _check_batch(x, model, name)
    _check_sizes(x.shape[1:], f"{name}.shape[1:]")
    known, inside = _known_shape(model), tuple(x.shape[1:])
    inner = None if known is None else transform_of(model).inner_shape(known)
    if inner is not None and inside != inner:
        within = "" if inner == known else f", which is {inner} in model units"
        raise ValueError(f"{name}.shape[1:] = {inside}: the model's data have the event shape {known}{within}")
    _check_dtype(x, model, name)
    sde: Any = model.sde
    _check_rows(x, sde.valid(x), model, name)


def _check_batch(x: Tensor, model: nn.Module, name: str) -> None:
    floating = _state_dtype(model).is_floating_point
    if not isinstance(x, Tensor) or x.is_floating_point() != floating:
        given = f"dtype {x.dtype}" if isinstance(x, Tensor) else f"type {type(x).__name__}"
        kind = "floating-point tensor" if floating else f"tensor of {_state_dtype(model)}"
        raise TypeError(f"{name} has {given}: needs a {kind} of shape (batch, *event)")
    if x.ndim < 2 or not len(x):
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}: needs (batch, *event) with at least one row and one event dimension; "
            f"{name}[None] makes one event a batch, {name}[:, None] gives numbers an event dimension"
        )


def _state_dtype(model: nn.Module) -> torch.dtype:
    sde: Any = model.sde
    return sde.state_dtype(tensor_like(model).dtype)


def _check_dtype(x: Tensor, model: nn.Module, name: str) -> None:
    like = next(_own(model, model.parameters()), x)
    if not like.is_floating_point():
        return
    sde: Any = model.sde
    needed = sde.state_dtype(like.dtype)
    if x.is_floating_point() and needed != x.dtype:
        raise ValueError(f"{name} has dtype {x.dtype}, the model computes in {needed}: convert one of them")
    if x.dtype != needed:
        raise TypeError(f"{name} has dtype {x.dtype}: states of {type(sde).__name__} are {needed}")


def _check_rows(x: Tensor, good: Tensor, model: nn.Module, name: str) -> None:
    if good.all():
        return
    rows = (~good).nonzero().squeeze(1).tolist()
    what = "finite" if not x.isfinite().all() else f"a state of {type(model.sde).__name__}"
    raise ValueError(f"{name} is not {what} in {len(rows)} of {len(x)} rows, the first is row {rows[0]}")


def check_output(module: nn.Module, x: Tensor, output) -> None:
    """Raise TypeError or ValueError where a score model returned anything but one tensor of the shape of x, or of
    another process than a Gaussian one, with the rows of x."""
    if not isinstance(output, Tensor):
        inside = f" of {', '.join(type(o).__name__ for o in output)}" if isinstance(output, tuple | list) else ""
        raise TypeError(
            f"{type(module).__name__} returned a {type(output).__name__}{inside} for x of shape {tuple(x.shape)}: "
            "a score model must return one tensor of the shape of x"
        )
    if output.shape == x.shape:
        return
    gaussian = not missing(module.sde, GaussianProcess)
    if (output.shape if gaussian else output.shape[:1]) != (x.shape if gaussian else x.shape[:1]):
        raise ValueError(
            f"{type(module).__name__} returned shape {tuple(output.shape)} for x of shape {tuple(x.shape)}: "
            f"a score model must return one tensor {'of the shape of x' if gaussian else 'with the rows of x'}"
        )


def check_finite(x: Tensor, sums: Sequence[Tensor], times: Tensor, steps: int, process: Process) -> None:
    """Raise SampleError where rows of x are no states, after a run through ``times`` that was to make ``steps``:
    NonFiniteError where they are not finite.

    ``sums``, of x after every step and after the last call, tell since when; a step is named with the time that it
    started from.
    """
    good = process.valid(x)
    if good.all():
        return
    finite = [bool(total.isfinite()) for total in sums]
    step = finite.index(False) if False in finite else (len(sums) or len(times)) - 1
    where = f"step {step + 1} of {steps}" if step < len(times) - 1 else "the last denoising call"
    rows, when = (~good).nonzero().squeeze(1).tolist(), f"({process.describe(times[step])})"
    if x.isfinite().all():
        raise SampleError(rows, f"left the states of {type(process).__name__} by the end of {where} {when}")
    raise NonFiniteError(rows, f"became non-finite in {where} {when}")


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
