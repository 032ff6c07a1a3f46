"""Film strips and animations of samples on their way between data and noise."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from samplers import SeededNoise
from samplers.noise.seeded import sample_seeds
from score_sde.kinds.base import Kind
from score_sde.plots.pictures import figure_bytes, plt
from sde.data import Dataset
from sde.data.transform import TransformLike
from sde.files import write_whole
from sde.process.base import SDE

STRIP_ITEMS = 4
"""Images or signals in a cell of a strip, one above the other."""
GIF_IMAGES, GIF_SIGNALS = 16, 6
"""Images, four per row, or signals in a panel of an animation."""
GAP_PIXELS = 2
"""Pixels of the gap between images."""
FRAME_SECONDS, LAST_SECONDS = 0.15, 1.5
AXES_MARGIN = 0.35
"""Margin around points and signals for the noise, as a share of the data's extent."""


class Reel(NamedTuple):
    """A row of a film: its caption, frames x (k, n, *event) in data units, sigma / alpha of each (k,), and what colors
    points, labels (n,) or None."""

    caption: str
    x: Tensor
    sigma: Tensor
    labels: Tensor | None = None


def forward(sde: SDE, data: Dataset, x: Tensor, times: Tensor, seed: int) -> Tensor:
    """Items x (n, *event) in data units at ``times`` (k,): (k, n, *event), mapped to data units as data are. Each item
    keeps its noise, so that x_t at every time is a draw of q(x_t | x_0)."""
    transform = data.transform
    x0 = transform.encode(transform.dequantize(x, 0.5))
    z = SeededNoise(sample_seeds(seed, len(x)))(x0)
    return torch.stack([transform.decode(sde.perturb(x0, t, z)) for t in times])


def as_spread(x: Tensor, times: Tensor, sde: SDE, transform: TransformLike, sigma_data: float) -> Tensor:
    """States x (k, n, *event) at ``times`` (k,), in data units, scaled to the spread of the data: x_t sigma_data /
    sqrt(alpha^2 sigma_data^2 + sigma^2) in model units. At the noise end of any process pictures would show little.
    Decoded latents stay as they are: no encoder leads back from what is no item."""
    if transform.learned:
        return x
    alpha, sigma = sde.alpha(times), sde.sigma(times)
    scale = (sigma_data * (alpha**2 * sigma_data**2 + sigma**2).rsqrt()).tolist()
    return torch.stack([transform.decode(c * transform.encode(state)) for c, state in zip(scale, x, strict=True)])


def strip(reels: Sequence[Reel], items: Tensor, path: Path, frames: int, kind: Kind) -> None:
    """A row per reel of ``frames`` of its frames, the first and last among them; ``items`` (n, *event) of the data say
    which values are black and white, and where the axes end."""
    cell = _Cell(kind, reels, items, STRIP_ITEMS, columns=1, marker=40)
    columns = min(frames, len(reels[0].x))
    size = 1.2 * columns, (cell.height * 1.2 + 0.3) * len(reels) + 0.3
    figure, grid = plt.subplots(len(reels), columns, figsize=size, squeeze=False, layout="constrained")
    for row, reel in zip(grid, reels, strict=True):
        for axes, j in zip(row, chosen(reel.sigma, min(frames, len(reel.x))), strict=True):
            cell.draw(axes, reel.x[j], reel.labels)
            axes.set_title(_number(reel.sigma[j]), fontsize=8, pad=3)
        row[0].set_ylabel(reel.caption, fontsize=9)
    figure.supxlabel("sigma / alpha above each frame; states are scaled to the spread of the data", fontsize=8)
    write_whole(path, figure_bytes(figure))


def chosen(sigma: Tensor, count: int) -> list[int]:
    """Positions of ``count`` noise levels sigma (k,), evenly spread in the angle atan(sigma), in which pictures change
    at an even pace; or in their numbers, where the levels are too few for that."""
    angle = sigma.atan()
    wanted = torch.linspace(0, 1, count, dtype=angle.dtype) * (angle[-1] - angle[0]) + angle[0]
    found = (angle - wanted[:, None]).abs().argmin(1).unique()
    if len(found) < count:
        found = torch.linspace(0, len(sigma) - 1, count).round().long()
    return found.tolist()


def animation(reels: Sequence[Reel], items: Tensor, path: Path, kind: Kind) -> int:
    """A GIF in which the reels, of equally many frames, run side by side; the number of frames in the file."""
    from PIL import Image

    most = GIF_IMAGES if kind.layout == "sheet" else GIF_SIGNALS
    cell = _Cell(kind, reels, items, most, columns=4, marker=120)
    size = 3 * len(reels), 3 * cell.height + 0.5
    figure, grid = plt.subplots(1, len(reels), figsize=size, squeeze=False, layout="constrained", dpi=100)
    pages = []
    for j in range(len(reels[0].x)):
        for axes, reel in zip(grid[0], reels, strict=True):
            axes.clear()
            cell.draw(axes, reel.x[j], reel.labels)
            axes.set_title(f"{reel.caption}\nsigma / alpha = {_number(reel.sigma[j])}", fontsize=10)
        figure.canvas.draw()
        pixels = figure.canvas.buffer_rgba()  # type: ignore[attr-defined]  # Agg's canvas, as plots.pictures says.
        pages.append(Image.fromarray(np.asarray(pixels)[..., :3].copy()))
    plt.close(figure)
    times = [round(1000 * FRAME_SECONDS)] * (len(pages) - 1) + [round(1000 * LAST_SECONDS)]
    buffer = io.BytesIO()
    pages[0].save(buffer, "GIF", save_all=True, append_images=pages[1:], duration=times, loop=0)
    write_whole(path, buffer.getvalue())
    # Pillow joins frames that are alike.
    with Image.open(buffer) as image:
        return image.n_frames  # type: ignore[attr-defined]  # A GIF has them.


class _Cell:
    """How one frame of some items is drawn, the same way in all cells."""

    def __init__(
        self, kind: Kind, reels: Sequence[Reel], items: Tensor, most: int, columns: int, marker: float
    ) -> None:
        items = _shown(kind, items)
        self.kind, self.marker = kind, marker
        self.most = min(most, *(reel.x.shape[1] for reel in reels))
        self.columns = min(columns, math.isqrt(self.most - 1) + 1)
        self.low, self.high = kind.scale(items)
        rows, size = -(-self.most // self.columns), items.shape[2:]
        self.height = 1.0 if kind.layout == "plane" else 0.3 * self.most
        if kind.layout == "sheet":
            self.height = rows * size[0] / (self.columns * size[1])

    def draw(self, axes, x: Tensor, labels: Tensor | None) -> None:
        """A frame x (n, *event)."""
        kind, shown = self.kind, _shown(self.kind, x)
        margin = AXES_MARGIN * (self.high - self.low)
        if kind.layout == "plane":
            size = self.marker / len(x) ** 0.5
            if labels is None:
                kind.draw(axes, shown, s=size)
            else:
                kind.draw(axes, shown, labels=labels, s=size)
            axes.set_xlim(self.low[0] - margin[0], self.high[0] + margin[0])
            axes.set_ylim(self.low[1] - margin[1], self.high[1] + margin[1])
        elif kind.layout == "sheet":
            axes.imshow(self._tiled(shown[: self.most].numpy()), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        else:
            step = self.high - self.low + margin
            for i in range(self.most):
                axes.set_prop_cycle(None)
                kind.draw(axes, shown[i : i + 1] - i * step, linewidth=0.7)
            axes.set_ylim(self.low - (self.most - 1) * step - margin, self.high + margin)
        axes.set_xticks([])
        axes.set_yticks([])

    def _tiled(self, x: np.ndarray) -> np.ndarray:
        """Images (n, channels, height, width) as one (rows * height, columns * width, channels) from 0 to 1, with a
        line between them."""
        x = np.clip((x - self.low) / max(self.high - self.low, 1e-12), 0, 1)[:, : 3 if x.shape[1] > 1 else 1]
        zoom = max(1, round(64 / x.shape[-1]))
        x = x.repeat(zoom, 2).repeat(zoom, 3)
        x = np.pad(x, ((0, -len(x) % self.columns), (0, 0), (0, GAP_PIXELS), (0, GAP_PIXELS)), constant_values=0.5)
        rows = x.reshape(-1, self.columns, *x.shape[1:]).transpose(0, 3, 1, 4, 2)
        return rows.reshape(rows.shape[0] * rows.shape[1], -1, x.shape[1])[:-GAP_PIXELS, :-GAP_PIXELS]


def _shown(kind: Kind, x: Tensor) -> Tensor:
    """What a picture shows of items, in float64. Raises ValueError for a kind that has no picture."""
    shown = kind.shown(x)
    if shown is None:
        raise ValueError(
            f"items of kind {kind.name} and shape {tuple(x.shape[1:])} have no picture: leave the film out"
        )
    return shown.double()


def _number(sigma: Tensor) -> str:
    return f"{sigma:.0f}" if sigma >= 100 else f"{sigma:.2g}"
