"""The noise input: what a network is told of the time."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, Self, cast

import torch
from torch import Tensor

from sde.device import double, send
from sde.process.base import SDE
from sde.process.level import Coefficient, Level


class Chain(Protocol):
    """A process with steps: their ``noise_levels`` (steps,), ascending, in float64 on the CPU."""

    @property
    def noise_levels(self) -> Tensor: ...


def _time(at: Level, sde: SDE, process: SDE | None) -> Coefficient:
    if process is None or process is sde or process == sde:
        return at.time
    # Beyond the ends of the other process its nearest time.
    most, least = process.log_snr_ends
    if isinstance(at.log_snr, float):
        return process.t_of_log_snr(double(min(max(at.log_snr, least), most))).item()
    return process.t_of_log_snr(at.log_snr.clamp(least, most))


def _step(at: Level, sde: SDE, process: SDE | None) -> Coefficient:
    levels = cast(Chain, process or sde).noise_levels
    # Between a step and the one before lies the middle of their noise levels; before the first there is no noise.
    middles = 0.5 * (levels + torch.cat([levels.new_zeros(1), levels[:-1]]))
    level = at.noise_level
    if isinstance(level, float):
        return float(torch.searchsorted(middles, level, right=True).item() - 1)
    middles = send(middles.to(level.dtype), level.device)
    return (torch.searchsorted(middles, level.contiguous(), right=True) - 1).to(level.dtype)


NOISE_INPUTS: dict[str, Callable[[Level, SDE, SDE | None], Coefficient]] = {
    "log_noise_level": lambda at, *_: -0.5 * at.log_snr,
    "noise_level": lambda at, *_: at.noise_level,
    "time": _time,
    "step": _step,
}
"""What a network may be told of a level: log(sigma / alpha), as Karras et al. 2022; sigma / alpha; the time t; and the
number of the chain's step with the nearest noise level, -1 for none (EDM's ``round_sigma``)."""

OF_PROCESS = ("time", "step")
"""Those that are of the process in which the network was trained."""

ROUNDINGS = ("down", "nearest")


@dataclass(frozen=True)
class NoiseInput:
    """c_noise = scale q + shift of a quantity q, the key ``of`` of NOISE_INPUTS; ``rounding`` "down" or "nearest" for
    networks that were trained on whole steps, else None.

    The default, log(sigma / alpha) / 4, is the same for every process. A time or step is that of ``process``, None for
    the one of the model, also where the model is seen through another process later. Raises ValueError for unknown
    names, numbers that are not finite, and a scale of zero.
    """

    of: str = "log_noise_level"
    scale: float = 0.25
    shift: float = 0.0
    rounding: str | None = None
    process: SDE | None = None

    def __post_init__(self) -> None:
        if self.of not in NOISE_INPUTS:
            raise ValueError(f"noise_input.of = {self.of!r}: needs one of {', '.join(NOISE_INPUTS)}")
        if not (math.isfinite(self.scale) and math.isfinite(self.shift) and self.scale):
            raise ValueError(
                f"noise_input: scale = {self.scale} and shift = {self.shift}: needs finite numbers, and a scale that "
                "is not 0"
            )
        if self.rounding not in (None, *ROUNDINGS):
            raise ValueError(f"noise_input.rounding = {self.rounding!r}: needs one of {', '.join(ROUNDINGS)}, or None")
        if self.process is not None and self.of not in OF_PROCESS:
            raise ValueError(f"noise_input.process: {self.of} is that of every process: leave it out")

    def bound(self, sde: SDE) -> Self:
        """The same, of times and steps of ``sde`` where it names no other process. Raises ValueError for steps of a
        process that has none."""
        found = replace(self, process=sde) if self.of in OF_PROCESS and self.process is None else self
        if self.of == "step" and not hasattr(found.process, "noise_levels"):
            raise ValueError(
                f"noise_input.of = 'step': {type(found.process).__name__} has no steps: needs a chain as its process"
            )
        return found

    def __call__(self, at: Level, sde: SDE) -> Coefficient:
        """c_noise of a level of the process ``sde``: a float of one time on the CPU, else of the shape of the times."""
        value = self.scale * NOISE_INPUTS[self.of](at, sde, self.process)
        value = value + self.shift if self.shift else value
        return value if self.rounding is None else _rounded(value, self.rounding, abs(self.scale) + abs(self.shift))


def _rounded(value: Coefficient, rounding: str, size: float) -> Coefficient:
    """A whole number; what lies below one by less than rounding of numbers of this size counts as it."""
    if isinstance(value, float):
        return float(math.floor(value + (0.5 if rounding == "nearest" else 1e-14 * size)))
    slack = 0.5 if rounding == "nearest" else 64 * torch.finfo(value.dtype).eps * size
    return torch.floor(value + slack)
