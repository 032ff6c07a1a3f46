"""Processes: how data become noise."""

from sde.process.base import SDE, check_time, expand
from sde.process.ve import VESDE
from sde.process.vp import VPSDE, SubVPSDE

SDES = {"vp": VPSDE, "subvp": SubVPSDE, "ve": VESDE}
"""Processes by name; the keyword arguments of each are its options."""

__all__ = ["SDE", "SDES", "VESDE", "VPSDE", "SubVPSDE", "check_time", "expand"]
