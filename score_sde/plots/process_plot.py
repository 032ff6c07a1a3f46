"""The plot of a process: alpha, sigma, the log signal-to-noise ratio, and where the grids put their steps."""

from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from samplers import GRIDS
from samplers.grid import make_grid
from score_sde.plots.pictures import figure_bytes, plt
from sde.files import write_whole
from sde.process.base import SDE

CURVE_POINTS = 401


def process_arrays(sde: SDE, steps: int) -> dict[str, Tensor]:
    """Times from t_min to t_max, what the process is at each of them, and every grid of so many steps; float64."""
    t = torch.linspace(sde.t_min, sde.t_max, CURVE_POINTS, dtype=torch.float64)
    curves = {name: getattr(sde, name)(t) for name in ("alpha", "sigma", "log_snr", "f", "g2")}
    return {"t": t, **curves, **{f"grid_{name}": make_grid(sde, name, steps) for name in GRIDS}}


def title_of(sde: SDE) -> str:
    """The process and its parameters, of a chain those that are not the defaults."""
    # Every process is a dataclass, which SDE does not say.
    shown = [f for f in fields(sde) if len(fields(sde)) <= 6 or getattr(sde, f.name) != f.default]  # type: ignore[arg-type]
    return f"{type(sde).__name__}({', '.join(f'{f.name}={_short(getattr(sde, f.name))}' for f in shown)})"


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} numbers"
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"


def process_picture(sde: SDE, arrays: dict[str, Tensor], path: Path) -> None:
    """The arrays of ``process_arrays`` as a picture."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    t = arrays["t"].numpy()
    left.plot(t, arrays["alpha"].numpy(), label="alpha")
    left.plot(t, arrays["sigma"].numpy(), label="sigma")
    left.set_title("signal and noise, x_t = alpha x_0 + sigma z", fontsize=10)
    if arrays["sigma"].max() > 10:
        left.set_yscale("log")
    left.legend()
    middle.plot(t, arrays["log_snr"].numpy(), color="C2")
    middle.set_title("log signal-to-noise ratio, log(alpha^2 / sigma^2)", fontsize=10)
    for axes in (left, middle):
        axes.set_xlabel("time t, from data to noise")
    for row, grid in enumerate(GRIDS):
        ratio = sde.noise_level(arrays[f"grid_{grid}"]).numpy()
        right.plot(ratio, [row] * len(ratio), "|", markersize=14, color=f"C{row}")
    right.set_xscale("log")
    right.set_yticks(range(len(GRIDS)), list(GRIDS))
    right.set_ylim(len(GRIDS) - 0.5, -0.5)
    right.set_xlabel("noise level, sigma / alpha")
    right.set_title(f"where {len(ratio) - 1} steps are, by grid", fontsize=10)
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
    figure.suptitle(title_of(sde))
    write_whole(path, figure_bytes(figure))
