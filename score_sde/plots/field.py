"""Fields in the plane: densities, scores and the probability flow."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from samplers import log_likelihood
from score_sde.plots.pictures import figure_bytes, plt
from sde.files import write_whole
from sde.model.score import ScoreModel

NOISE_LEVELS = (0.05, 0.25, 0.7, 2.0)
"""sigma / alpha of the panels, in units of sigma_data."""
GRID_POINTS = 48
"""Points of the plane along each axis."""
MAX_ARROWS = 16
"""Arrows along each axis, at most."""
NOISE_EXTENT = 3.5
"""Standard deviations of the noise that a panel extends beyond the data."""
TOLERANCE = 1e-4
"""Tolerance of the solver of log p, which is then within a few hundredths of a nat."""


class Begun(ScoreModel):
    """The same model with a process that begins at time t: its data are the noisy x_t, of which it has the density."""

    def __init__(self, model: ScoreModel, t: float) -> None:
        # Every process is a frozen dataclass, which SDE does not say.
        super().__init__(replace(model.sde, t_min=t), model.transform)  # type: ignore[type-var]
        self.model, self.normalized = model, model.normalized

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.model(x, t)


def panel_times(sde, sigma_data: float) -> Tensor:
    """The times of the panels, those that the process has."""
    ratio = torch.tensor(NOISE_LEVELS, dtype=torch.float64) * sigma_data
    least, most = sde.noise_level(torch.tensor([sde.t_min, sde.t_max], dtype=torch.float64)).tolist()
    times = sde.t_of_noise_level(ratio.clamp(least, most)).unique()
    return times[times < sde.t_max]


def axes_of(model: ScoreModel, items: Tensor, t: Tensor, count: int = GRID_POINTS) -> Tensor:
    """Middles (2, count) of equal cells in data units, over all that x_t of the items (n, 2) reaches."""
    alpha, sigma = model.sde.alpha(t), model.sde.sigma(t)
    x0 = model.transform.encode(items)
    ends = torch.stack([alpha * x0.amin(0) - NOISE_EXTENT * sigma, alpha * x0.amax(0) + NOISE_EXTENT * sigma])
    low, high = model.transform.decode(ends).double()
    return low[:, None] + (high - low)[:, None] * (torch.arange(count, dtype=torch.float64) + 0.5) / count


@torch.no_grad()
def fields(model: ScoreModel, axes: Tensor, t: Tensor, batch_size: int, device: torch.device) -> dict[str, Tensor]:
    """On the grid of ``axes`` (2, m) in data units, rows along the second coordinate, at time t: ``"log_density"`` (m,
    m) of x_t, unless the model is no density; ``"score"`` and ``"velocity"`` (m, m, 2); the ``"mass"`` () that the
    density has on the grid."""
    transform, count = model.transform, axes.shape[1]
    x = torch.stack(torch.meshgrid(axes[0], axes[1], indexing="xy"), -1).flatten(0, 1).float().to(device)
    zero = transform.decode(torch.zeros_like(x[:1]))
    parts = []
    for rows in x.split(batch_size):
        z = transform.encode(rows)
        # By the chain rule through z = (x - shift) / scale, to data units.
        score = transform.encode(model.score(z, t) + zero.expand_as(z))
        parts.append([score, transform.decode(model.velocity(z, t)) - zero])
        if model.normalized:
            begun = Begun(model, t.item())
            parts[-1].append(log_likelihood(begun, rows, rtol=TOLERANCE, atol=TOLERANCE).nats)
    score, velocity, *nats = (torch.cat(values).cpu() for values in zip(*parts, strict=True))
    found = {"score": score.view(count, count, 2), "velocity": velocity.view(count, count, 2)}
    if nats:
        cell = (axes[:, 1] - axes[:, 0]).prod()
        found["log_density"] = nats[0].view(count, count)
        found["mass"] = nats[0].double().exp().sum() * cell
    return found


def field_picture(panels: list[dict[str, Tensor]], title: str, path: Path) -> None:
    """Panels, each ``fields`` with its ``"axes"``, ``"noise_level"`` and noisy ``"points"`` (n, 2): above the score,
    below the flow towards the data."""
    width, height = panels[-1]["axes"].diff().sum(1).tolist()
    size = 3.6 * len(panels), 2 * (3.4 * min(2.0, max(0.5, height / width)) + 0.4) + 0.5
    figure, grid = plt.subplots(2, len(panels), figsize=size, squeeze=False, layout="constrained")
    for column, panel in zip(grid.T, panels, strict=True):
        x, y = panel["axes"].numpy()
        for axes in column:
            if "log_density" in panel:
                axes.pcolormesh(
                    x, y, panel["log_density"].exp().numpy(), cmap="Blues", shading="nearest", rasterized=True
                )
            else:
                axes.scatter(*panel["points"].numpy().T, s=3, color="C0", alpha=0.4, linewidths=0)
            axes.set_aspect("equal")
            axes.set_xlim(x[0], x[-1])
            axes.set_ylim(y[0], y[-1])
            axes.tick_params(labelsize=8)
        every = max(1, len(x) // MAX_ARROWS)
        few = slice(every // 2, None, every)
        score = panel["score"].numpy()[few, few]
        # Lengths by the square root, as scores of the margins are many times those near the data.
        length = np.linalg.norm(score, axis=-1, keepdims=True)
        arrows = score / np.sqrt(np.maximum(length, 1e-12))
        column[0].quiver(x[few], y[few], *np.moveaxis(arrows, -1, 0), color="0.15", width=0.005, angles="xy")
        towards = -panel["velocity"].numpy()
        column[1].streamplot(
            x, y, *np.moveaxis(towards, -1, 0), color="0.15", density=0.9, linewidth=0.7, arrowsize=0.8
        )
        column[0].set_title(f"sigma / alpha = {panel['noise_level']:.2g}", fontsize=10)
    grid[0, 0].set_ylabel("score (arrows, length by its root)")
    grid[1, 0].set_ylabel("probability flow towards the data")
    figure.suptitle(title)
    write_whole(path, figure_bytes(figure))
