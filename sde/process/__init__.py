"""Processes: how data become noise."""

from sde.named import component, subclass_of
from sde.process.base import SDE, check_time
from sde.process.chain import ChainSDE
from sde.process.coefficients import expand
from sde.process.flow import GVPSDE, FlowSDE
from sde.process.ve import VESDE
from sde.process.vp import VPSDE, SubVPSDE

SDES: dict[str, type[SDE]] = {
    "vp": VPSDE,
    "subvp": SubVPSDE,
    "ve": VESDE,
    "chain": ChainSDE,
    "flow": FlowSDE,
    "gvp": GVPSDE,
}
"""Processes by name; the keyword arguments of each are its options."""


def process_of(name: str, key: str = "sde") -> type[SDE]:
    """The class of a name in SDES, or of an import path, package.module:Class, where that is a subclass of ``SDE``.
    Raises ValueError for any other."""
    return component(SDES, key, name, subclass_of(SDE), "a subclass of sde.SDE")


__all__ = [
    "GVPSDE", "SDE", "SDES", "VESDE", "VPSDE", "ChainSDE", "FlowSDE", "SubVPSDE", "check_time", "expand", "process_of",
]  # fmt: skip
