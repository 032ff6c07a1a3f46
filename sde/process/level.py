"""Levels: what a process is at one time, as numbers that steps and score models put into their formulas."""

from collections.abc import Callable
from functools import cached_property, partial

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sde.device import send

Coefficient = float | Tensor
"""A Python float of one time, or a tensor of the shape of the times."""


class Level:
    """The coefficients of a process at a ``time``, each computed when it is first asked for: ``read(name)`` is the
    value of the process's method ``name``.

    Of one time on the CPU they are Python floats: a formula of a few of them costs less than one operation on a tensor.
    Of times (B,), and of a time that is differentiated, transformed or on another device, they are tensors of the
    shape of t; what is computed from them keeps its gradient, and nothing is read back.
    """

    def __init__(self, read: Callable[[str], Coefficient], time: Coefficient) -> None:
        self._read, self.time = read, time

    @cached_property
    def log_alpha(self) -> Coefficient:
        """log alpha; the ratio of two alphas is best the exponential of a difference of these."""
        return self._read("log_alpha")

    @cached_property
    def alpha(self) -> Coefficient:
        """The factor of the data."""
        return self._read("alpha")

    @cached_property
    def sigma(self) -> Coefficient:
        """The standard deviation of the noise."""
        return self._read("sigma")

    @cached_property
    def log_snr(self) -> Coefficient:
        """log(alpha^2 / sigma^2)."""
        return self._read("log_snr")

    @cached_property
    def noise_level(self) -> Coefficient:
        """sigma / alpha."""
        return self._read("noise_level")

    @cached_property
    def alpha_rate(self) -> Coefficient:
        """d alpha / dt."""
        return self._read("alpha_rate")

    @cached_property
    def sigma_rate(self) -> Coefficient:
        """d sigma / dt."""
        return self._read("sigma_rate")

    @cached_property
    def f(self) -> Coefficient:
        """The drift's factor."""
        return self._read("f")

    @cached_property
    def g2(self) -> Coefficient:
        """The squared diffusion."""
        return self._read("g2")

    def on(self, like: Tensor, function: Callable[["Level"], Coefficient]) -> Tensor:
        """function(self), a number, as a 0-d tensor of the dtype and on the device of ``like``."""
        return like.new_full((), float(function(self)))


class GridLevel(Level):
    """One of the levels of a run, which share what they compute: a row of each column."""

    def __init__(self, read: Callable[[str], Coefficient], time: float, row: int, levels: "list[GridLevel]") -> None:
        super().__init__(read, time)
        self._row, self._levels = row, levels
        self._columns: dict[tuple, Tensor] = levels[0]._columns if levels else {}

    def on(self, like: Tensor, function: Callable[[Level], Coefficient]) -> Tensor:
        """A view into the column of all levels, which is sent to the device once."""
        key = (function, like.dtype, like.device)
        if key not in self._columns:
            values = torch.tensor([function(level) for level in self._levels], dtype=torch.float64, device="cpu")
            self._columns[key] = send(values.to(like.dtype), like.device)
        return self._columns[key][self._row]


def level_at(process, t: Tensor) -> Level:
    """The level of a process, which has the methods that Level names, at times t; see Level for what it holds."""
    # What is traced for a graph keeps its time as a tensor: a float would be a constant of it.
    if t.ndim == 0 and not torch.compiler.is_compiling():
        place = vars(t).get("place")
        if place is not None and not t.requires_grad:
            return place(process)
        if _is_plain(t):
            return Level(lambda name: getattr(process, name)(t).item(), t.item())
    return Level(lambda name: getattr(process, name)(t), t)


def _is_plain(t: Tensor) -> bool:
    """Whether a 0-d time may be read: on the CPU, and not differentiated in any way that a float would end."""
    return (
        t.device.type == "cpu"
        and not t.requires_grad
        and not torch._C._are_functorch_transforms_active()
        and forward_ad.unpack_dual(t).tangent is None
    )


class Grid:
    """The times (k,) of one run and the levels of every process that is asked at them, k values at once.

    It belongs to the run, and is no longer kept than its times. Processes are told apart by identity, as they need not
    be hashable.
    """

    def __init__(self, times: Tensor) -> None:
        self.times = times
        self.known: list[tuple[object, list[GridLevel]]] = []

    def points(self) -> list[Tensor]:
        """The times as 0-d tensors, each of which knows its place here: a process finds its level by it."""
        points = list(self.times.unbind())
        for row, t in enumerate(points):
            vars(t)["place"] = partial(self.level, row)
        return points

    def level(self, row: int, process) -> Level:
        """The level of a process at the time in a row."""
        for owner, levels in self.known:
            if owner is process:
                return levels[row]
        levels = _levels(process, self.times)
        self.known.append((process, levels))
        return levels[row]


def _levels(process, times: Tensor) -> "list[GridLevel]":
    """The levels at times (k,): what one of them is first asked for is computed and kept for all."""

    def read(row: int, name: str) -> float:
        values = _column(getattr(process, name), times)
        for level, value in zip(levels, values, strict=True):
            vars(level)[name] = value
        return values[row]

    levels: list[GridLevel] = []
    for row, time in enumerate(times.tolist()):
        levels.append(GridLevel(partial(read, row), time, row, levels))
    return levels


def _column(function: Callable[[Tensor], Tensor], times: Tensor) -> list[float]:
    """The function's values at times (k,); one by one where it takes no more, or is not elementwise."""
    try:
        values = function(times)
        if values.shape == times.shape:
            return values.tolist()
    except (RuntimeError, TypeError, AttributeError):
        pass
    return [function(t).item() for t in times]
