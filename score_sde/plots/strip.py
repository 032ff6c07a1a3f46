"""Strips: pictures of the same samples under several settings, with the name of each."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from score_sde.kinds.base import Kind
from score_sde.kinds.image import scaled
from score_sde.plots.pictures import figure_bytes, plt
from score_sde.plots.sheet import sheet
from sde.files import write_whole

MAX_IN_ROW = 16
"""Images up to which a setting is one row of them; more are a block, ten per row."""
MAX_SIGNALS = 8
"""Signals of each setting that are drawn."""
SHARED: dict[str, Any] = {"sharex": True, "sharey": True, "squeeze": False, "layout": "constrained"}
"""Options of axes that have one scale."""


def strip(
    x: Tensor, names: Sequence[str], path: Path, *, kind: Kind, levels: int | None, labels: Tensor | None = None
) -> bool:
    """Samples x (settings, n, *event) in data units, sample i of each in the same place: images in a row or a block for
    each setting, points in a panel, signals in a column. False, and nothing written, for what has no picture.
    """
    shown = kind.shown(x, 2)
    if shown is None:
        return False
    if kind.layout == "sheet":
        content = _images(kind, shown, names, levels)
    elif kind.layout == "plane":
        content = _points(kind, shown, names, labels)
    else:
        content = _signals(kind, shown, names)
    write_whole(path, content)
    return True


def _images(kind: Kind, x: Tensor, names: Sequence[str], levels: int | None) -> bytes:
    values, count = x.double().numpy(), x.shape[1]
    low, high = kind.scale(x.double(), levels)
    columns, across = (count, 1) if count <= MAX_IN_ROW else (10, math.ceil(len(x) ** 0.5))
    blocks = [plt.imread(io.BytesIO(sheet(scaled(part, low, high), columns, width=0))) for part in values]
    height, width = blocks[0].shape[:2]
    # In inches: the images of a block, and its name above them.
    breadth, down = max(2.0, 0.45 * columns), math.ceil(len(x) / across)
    size = breadth * across, (breadth * height / width + 0.25) * down
    figure, grid = plt.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
    for axes in grid.flat:
        axes.axis("off")
    for axes, name, block in zip(grid.flat, names, blocks, strict=False):
        axes.imshow(block, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(name, fontsize=9, loc="left", pad=3)
    return figure_bytes(figure)


def _points(kind: Kind, x: Tensor, names: Sequence[str], labels: Tensor | None) -> bytes:
    across = min(len(x), 4)
    down = math.ceil(len(x) / across)
    size = 3 * across, 3.2 * down
    figure, grid = plt.subplots(down, across, figsize=size, **SHARED)
    for axes in grid.flat[len(x) :]:
        axes.axis("off")
    for axes, name, points in zip(grid.flat, names, x, strict=False):
        kind.draw(axes, points, labels=labels)
        axes.set_aspect("equal")
        axes.set_title(name, fontsize=9)
    return figure_bytes(figure)


def _signals(kind: Kind, x: Tensor, names: Sequence[str]) -> bytes:
    rows = min(MAX_SIGNALS, x.shape[1])
    size = 3.5 * len(x), 0.9 * rows + 0.3
    figure, grid = plt.subplots(rows, len(x), figsize=size, **SHARED)
    for column, name, signals in zip(grid.T, names, x, strict=True):
        column[0].set_title(name, fontsize=9)
        for axes, signal in zip(column, signals, strict=False):
            kind.draw(axes, signal[None])
    return figure_bytes(figure)
