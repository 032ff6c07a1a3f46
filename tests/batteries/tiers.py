"""The two tiers of the batteries of samplers: what runs on which process.

A sampler that is registered runs on every process, since its name is what users give. A variant by options runs on two:
``vp``, which keeps the variance, and ``straight``, two formulas alone with alpha^2 + sigma^2 != 1. An adaptive sampler
runs on ``vp`` alone: it is slow, and its own tests run it on every process.
"""

from samplers import SAMPLERS
from tests.oracles.processes import PROCESSES

TWO = ("vp", "straight")
ADAPTIVE = tuple(name for name, factory in SAMPLERS.items() if factory().steps == 1)


def two_tiers(names):
    """Pairs of a sampler and a process, for ``parametrize(("name", "process"), ..., indirect=["process"])``."""
    return [(name, process) for name in names for process in processes_of(name)]


def processes_of(name):
    if name in ADAPTIVE:
        return TWO[:1]
    return PROCESSES if name in SAMPLERS else TWO
