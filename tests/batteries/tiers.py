"""The two tiers of the batteries of samplers: what runs on which process.

A sampler that is registered runs on every registered process, since their names are what users give, and on
``straight``, two formulas alone with alpha^2 + sigma^2 != 1; the options of a process have tests of their own, which
need no samplers. A variant of a sampler by options runs on two, ``vp``, which keeps the variance, and ``straight``. An
adaptive sampler runs on ``vp`` alone: it is slow, and its own tests run it on every process.
"""

from samplers import SAMPLERS
from sde import SDES
from tests.oracles.processes import PROCESSES

TWO = ("vp", "straight")
REGISTERED = (*(name for name in PROCESSES if name in SDES), TWO[1])
ADAPTIVE = tuple(name for name, factory in SAMPLERS.items() if getattr(factory, "adaptive", False))


def two_tiers(names):
    """Pairs of a sampler and a process, for ``parametrize(("name", "process"), ..., indirect=["process"])``."""
    return [(name, process) for name in names for process in processes_of(name)]


def processes_of(name):
    if name in ADAPTIVE:
        return TWO[:1]
    return REGISTERED if name in SAMPLERS else TWO
