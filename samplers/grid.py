"""Time grids: where the steps are. Each maps an SDE and a number of steps to steps + 1 float64 times on the CPU,
strictly decreasing from ``start``, the noise end unless told otherwise, to the data end."""

import math
from collections.abc import Callable, Sequence
from functools import wraps

import torch
from torch import Tensor

from samplers.checks import check_integer, check_process
from samplers.first_step import is_open, t_signal
from samplers.host import double
from samplers.protocol import GaussianProcess, missing


def _ends(sde, start: float | None) -> tuple[Tensor, Tensor]:
    first = sde.t_max if start is None else start
    return double(first), double(sde.t_min)


def _fractions(steps: int) -> Tensor:
    return torch.linspace(0, 1, steps + 1, dtype=torch.float64, device="cpu")


def times_of_log_snr(sde, log_snr: Tensor, start: float | None = None) -> Tensor:
    """The times of log-SNRs (steps + 1,) from end to end; the ends exactly, not up to the inverse's rounding."""
    times = sde.t_of_log_snr(log_snr)
    times[0], times[-1] = _ends(sde, start)
    return times


def from_open_end(grid: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A grid of noise levels that takes an open noise end, which has none, and then those from ``t_signal`` on."""

    @wraps(grid)
    def build(sde, steps: int, start: float | None = None, **options: float) -> Tensor:
        first, last = _ends(sde, start)
        if not is_open(sde, first):
            return grid(sde, steps, start, **options)
        rest = grid(sde, steps - 1, t_signal(sde), **options) if steps > 1 else last[None]
        return torch.cat([first[None], rest])

    return build


def uniform(sde, steps: int, start: float | None = None) -> Tensor:
    """Equal steps in t."""
    return polynomial(sde, steps, start, power=1.0)


def polynomial(sde, steps: int, start: float | None = None, power: float = 2.0) -> Tensor:
    """Equal steps in t^(1 / power), closer together at the data end (Song, Meng and Ermon 2021, D.2, for 2)."""
    first, last = (end ** (1 / power) for end in _ends(sde, start))
    times = (first + (last - first) * _fractions(steps)) ** power
    times[0], times[-1] = _ends(sde, start)
    return times


@from_open_end
def log_snr(sde, steps: int, start: float | None = None) -> Tensor:
    """Equal steps in the log signal-to-noise ratio (Lu et al. 2022, section 3.3)."""
    first, last = (sde.log_snr(t) for t in _ends(sde, start))
    return times_of_log_snr(sde, first + (last - first) * _fractions(steps), start)


@from_open_end
def cosine(sde, steps: int, start: float | None = None) -> Tensor:
    """Equal steps in the angle atan(sigma / alpha), as a cosine schedule with equal steps in t has them (Salimans and
    Ho 2022, appendix D): closer together than ``log_snr`` where signal and noise are alike."""
    first, last = (torch.atan(sde.noise_level(t)) for t in _ends(sde, start))
    angle = first + (last - first) * _fractions(steps)
    return times_of_log_snr(sde, -2 * torch.tan(angle).log(), start)


@from_open_end
def karras(sde, steps: int, start: float | None = None, rho: float = 7.0) -> Tensor:
    """Equal steps in (sigma / alpha)^(1 / rho) (Karras et al. 2022, eq. 5)."""
    first, last = (sde.noise_level(t) ** (1 / rho) for t in _ends(sde, start))
    return times_of_log_snr(sde, -2 * rho * (first + (last - first) * _fractions(steps)).log(), start)


def flow(sde, steps: int, start: float | None = None, shift: float = 1.0) -> Tensor:
    """Equal steps in u = r / (1 + r), the time of the straight path alpha = 1 - u, sigma = u, from end to end, where
    r is sigma / alpha divided by ``shift``: there the times are shift u / (1 + (shift - 1) u) (Esser et al. 2024, eq.
    23, with shift = sqrt(m / n)), and with a shift of 1 those of ``uniform``. An open noise end is u = 1."""
    first, last = _ends(sde, start)
    least, most = sde.log_snr(first), sde.log_snr(last)
    high, low = (torch.sigmoid(-0.5 * end - math.log(shift)) for end in (least, most))
    high = torch.ones_like(high) if is_open(sde, first) else high
    u = high + (low - high) * _fractions(steps)
    log_snr = -2 * (torch.logit(u) + math.log(shift))
    return times_of_log_snr(sde, log_snr.clamp(least, most), start)


MAX_STEPS = 1_000_000
"""More would fill the memory with times before the first step."""

GRIDS = {
    "uniform": uniform,
    "polynomial": polynomial,
    "log_snr": log_snr,
    "cosine": cosine,
    "karras": karras,
    "flow": flow,
}
"""Grids by name; ``plan`` finds one for a model, and ``generate`` takes any tensor of times."""


OF_TIME = ("uniform", "polynomial")
"""Those that ask for t_min and t_max alone, and so suit every process."""


def make_grid(sde, grid: str, steps: int, start: float | None = None) -> Tensor:
    """The named grid; "karras:5" is karras with rho = 5, "polynomial:3" polynomial with power 3, "flow:3" flow with
    shift 3. Raises ValueError for an unknown name, a number out of place, or steps that are no positive integer."""
    name, colon, number = grid.partition(":")
    if name not in GRIDS:
        raise ValueError(f"grid = {grid!r}: needs one of {', '.join(GRIDS)}")
    if name not in OF_TIME:
        check_process(sde, GaussianProcess, f"grid = {grid!r}")
    options: dict[str, float] = {}
    if colon:
        option = {"karras": "rho", "polynomial": "power", "flow": "shift"}.get(name, "")
        try:
            options = {option: float(number)}
        except ValueError:
            option = ""
        if not option or not 0 < options[option] < math.inf:
            raise ValueError(
                f"grid = {grid!r}: a number behind a name is karras:RHO, polynomial:POWER or flow:SHIFT, above 0"
            )
    return check_times(GRIDS[name](sde, check_integer("steps", steps, 1, MAX_STEPS), start, **options), sde)


SOURCE = "source"
"""The grid of the times of a model's source, which that has to say: ``source_times``."""


def source_times(grid: str, levels: Sequence[float]) -> Tensor:
    """Of "source" the times ``levels`` (k,), decreasing, of the steps that the source of a model takes itself; of
    "source:N" N of them, evenly picked by their numbers, from the first to the last. Raises ValueError unless N is a
    whole number from 2 to k."""
    name, colon, number = grid.partition(":")
    times = torch.tensor(levels, dtype=torch.float64, device="cpu")
    count = int(number) if number.isascii() and number.isdigit() else 0
    if name != SOURCE or (colon and not 2 <= count <= len(times)):
        raise ValueError(f"grid = {grid!r}: needs {SOURCE}, or {SOURCE}:N with N from 2 to {len(times)}")
    if not colon:
        return times
    # Counted from the data end, as chains count their steps.
    picked = torch.linspace(0, len(times) - 1, count, dtype=torch.float64, device="cpu").round().long()
    return times.flip(0)[picked].flip(0)


def make_jumps(sde, grid: str, steps: int, start: float | None = None) -> Tensor:
    """The named grid for a flow map: where it begins at an open noise end, its first level is that end itself, and not
    the one behind it, as a flow map needs no first step of its own from there."""
    if start is not None or not is_open(sde, double(sde.t_max)) or grid.partition(":")[0] in OF_TIME:
        return make_grid(sde, grid, steps, start)
    times = make_grid(sde, grid, steps, t_signal(sde))
    times[0] = sde.t_max
    return times


MAX_SIGNAL = 2e-4
"""alpha^2 / sigma^2 up to which x counts as noise: it leaves at most 1e-4 nats per dimension between x and the prior,
of data of unit mean square."""


def check_noise_end(sde, t: Tensor) -> None:
    """Raise ValueError unless x is noise alone at t (0-d), where a run from pure noise begins: a Gaussian process may
    have the signal MAX_SIGNAL, or four times that at its own t_max; of others t_max alone is known to be noise."""
    if missing(sde, GaussianProcess):
        late, ratio = t < sde.t_max - 1e-6 * (sde.t_max - sde.t_min), ""
    else:
        signal, least = (sde.log_snr(time).exp().item() for time in (t, double(sde.t_max)))
        late, ratio = signal > max(MAX_SIGNAL, 4 * least), f" and alpha / sigma = {signal**0.5:.3g}"
    if late:
        raise ValueError(
            f"grid: it starts at t = {t:.6g}{ratio}, where x is not pure noise; let it start at t_max = "
            f"{sde.t_max:.6g}, or give `start` and `start_time`, the data to begin from and their time"
        )


def check_times(times: Tensor | Sequence[float], sde) -> Tensor:
    """times as a float64 CPU tensor; raises ValueError unless strictly decreasing within [t_min, t_max]."""
    times = torch.as_tensor(times, dtype=torch.float64, device="cpu")
    if times.ndim != 1 or len(times) < 2:
        raise ValueError(f"times has shape {tuple(times.shape)}: needs at least two times in one dimension")
    late = torch.nonzero(~(times[1:] < times[:-1]))
    if len(late):
        i = int(late[0])
        raise ValueError(
            f"times must be strictly decreasing: entry {i + 1} ({times[i + 1]:.6g}) does not lie below entry "
            f"{i} ({times[i]:.6g})"
        )
    slack = 1e-9 * (sde.t_max - sde.t_min)
    if times[0] > sde.t_max + slack or times[-1] < sde.t_min - slack:
        raise ValueError(
            f"times run from {times[0]:.6g} to {times[-1]:.6g}: they must stay within t_max = {sde.t_max:.6g} "
            f"and t_min = {sde.t_min:.6g} of the SDE"
        )
    return times
