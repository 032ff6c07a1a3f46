"""The diffusion coefficient w of the reverse SDE, which is free, and what one step can carry of it.

dx = (velocity - w / 2 score) dt + sqrt(w) dw, run from t_max down, has the marginals of the process for every w(t) >=
0: in its Fokker-Planck equation the term of w / 2 score and that of the noise are the same but for their signs (Song et
al. 2021, appendix D.1; Ma et al. 2024, SiT, section 2). w = g^2 is Song's reverse SDE, f x - g^2 score; w = 0 is the
probability flow. At an open noise end g^2 is infinite; the others are finite there, as velocity and score are.
"""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

PROCESS = "process"
"""w = g^2, that of the process itself."""

DIFFUSIONS: dict[str, Callable[[Any, float], float]] = {
    "sigma": lambda at, part: at.sigma,
    "sine": lambda at, part: math.sin(math.pi * part) ** 2,
}
"""w by name, of a level and of its time, which is taken in parts of t_max where that is above 1."""

CARRIED = 0.25
"""The variance that a step adds at most, in units of sigma^2 where it arrives. Around a datum, where the score is
steepest, many such steps make sigma 3.3 % too large; from 4 on, states would grow without end."""

FASTEST = 10.0
"""The largest w / g^2 of solvers that choose their own steps, whose steps a larger one would make short without end."""


def as_diffusion(diffusion: str | float) -> str | float:
    """The name of a w, or the number that it is at every time. Raises ValueError for another name, and for a number
    below 0."""
    if diffusion == PROCESS or diffusion in DIFFUSIONS:
        return diffusion
    try:
        number = float(diffusion)
    except (TypeError, ValueError):
        number = math.nan
    if not (number >= 0 and math.isfinite(number)):
        names = ", ".join((PROCESS, *DIFFUSIONS))
        raise ValueError(f"diffusion = {diffusion!r}: needs one of {names}, or a number of at least 0")
    return number


def squared_diffusion(diffusion: str | float, process, t: Tensor) -> float:
    """w at a 0-d time."""
    at = process.level(t)
    if diffusion == PROCESS:
        return at.g2
    if isinstance(diffusion, str):
        return DIFFUSIONS[diffusion](at, t.item() / max(1.0, process.t_max))
    return diffusion


def carried_variance(diffusion: str | float, eta: float, process, t: Tensor, s: Tensor) -> float:
    """What a step from t to s adds to the variance: eta^2 w (t - s), but at most CARRIED sigma_s^2."""
    wanted = eta**2 * squared_diffusion(diffusion, process, t) * (t.item() - s.item())
    return min(wanted, CARRIED * process.level(s).sigma ** 2)


def relative_diffusion(diffusion: str | float, process, t: Tensor) -> float:
    """w / g^2 at a 0-d time, at most FASTEST."""
    return 1.0 if diffusion == PROCESS else min(squared_diffusion(diffusion, process, t) / process.level(t).g2, FASTEST)
