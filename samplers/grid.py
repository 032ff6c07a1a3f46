"""Time grids: where the steps are. Each returns steps + 1 float64 times on the CPU, strictly decreasing from the noise
end to the data end of an SDE."""

import torch
from torch import Tensor


def _ends(sde) -> tuple[Tensor, Tensor]:
    return torch.tensor(sde.t_max, dtype=torch.float64), torch.tensor(sde.t_min, dtype=torch.float64)


def _of_log_snr(sde, log_snr: Tensor) -> Tensor:
    times = sde.t_of_log_snr(log_snr)
    # The ends exactly, not up to the rounding of the inverse.
    times[0], times[-1] = _ends(sde)
    return times


def uniform(sde, steps: int) -> Tensor:
    """Equal steps in t."""
    return torch.linspace(sde.t_max, sde.t_min, steps + 1, dtype=torch.float64)


def log_snr(sde, steps: int) -> Tensor:
    """Equal steps in the log signal-to-noise ratio (Lu et al. 2022, section 3.3)."""
    start, end = (sde.log_snr(t) for t in _ends(sde))
    return _of_log_snr(sde, start + (end - start) * torch.linspace(0, 1, steps + 1, dtype=torch.float64))


def karras(sde, steps: int, rho: float = 7.0) -> Tensor:
    """Equal steps in (sigma / alpha)^(1 / rho) (Karras et al. 2022, eq. 5)."""
    start, end = ((-0.5 * sde.log_snr(t)).exp() ** (1 / rho) for t in _ends(sde))
    ratio = (start + (end - start) * torch.linspace(0, 1, steps + 1, dtype=torch.float64)) ** rho
    return _of_log_snr(sde, -2 * ratio.log())


GRIDS = {"uniform": uniform, "log_snr": log_snr, "karras": karras}


def make_grid(sde, grid: str, steps: int) -> Tensor:
    """The named grid, after checking its name and the number of steps."""
    if grid not in GRIDS:
        raise ValueError(f"grid = {grid!r}: needs one of {', '.join(GRIDS)}")
    if isinstance(steps, bool) or steps != int(steps) or steps < 1:
        raise ValueError(f"steps = {steps}: needs an integer of at least 1")
    return check_times(GRIDS[grid](sde, int(steps)), sde)


def check_times(times: Tensor, sde) -> Tensor:
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
