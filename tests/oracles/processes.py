"""The processes that batteries run over: everything registered, and one as a user would write it."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sde import SDE, SDES, VPSDE, ChainSDE
from sde.process.schedule import SCHEDULES


@dataclass(frozen=True)
class Straight(SDE):
    """x_t = (1 - t) x_0 + t z, the path of flow matching, by the two formulas alone."""

    t_min: float = 1e-3

    def log_alpha(self, t: Tensor) -> Tensor:
        return torch.log1p(-t)

    def sigma(self, t: Tensor) -> Tensor:
        return t


PROCESSES: dict[str, SDE] = {
    **{name: kind() for name, kind in SDES.items()},
    **{f"vp-{schedule}": VPSDE(schedule=schedule) for schedule in SCHEDULES if schedule != "linear"},
    # With an open noise end; its other tables have tests of their own.
    "chain": ChainSDE(zero_terminal_snr=True),
    "straight": Straight(),
}


def interior(sde: SDE, count: int = 50) -> Tensor:
    """Times in float64, dense towards the data end, inside the range."""
    low, high = max(sde.t_min, 1e-5), sde.t_signal
    return torch.logspace(math.log10(low), math.log10(high), count, dtype=torch.float64).clamp(low, high)


def ending_with_signal(sde: SDE) -> SDE:
    """The same without an open noise end, which some parametrizations refuse."""
    return replace(sde, t_max=sde.t_signal) if sde.open_end else sde  # type: ignore[type-var]
