"""Panels: tables of pictures, a row per item, a column for each thing that became of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from score_sde.kinds.base import Kind
from score_sde.kinds.image import scaled
from score_sde.plots.pictures import figure_bytes, plt
from score_sde.plots.sheet import sheet
from sde.files import write_whole

HIDDEN = (90, 115, 165)
"""The color of entries that are NaN."""

MAX_SIGNALS = 16


def panels(
    columns: dict[str, Tensor], path: Path, *, kind: Kind, levels: int | None, spread: Tensor | None = None
) -> bool:
    """Columns by their captions, of items in data units: each (n, k, *event) with k pictures of every item side by
    side, or over each other where they are points or signals. NaN stands for what is not known. Images of another size
    than those of the first column, or with another number of channels, are brought to its own, and columns of other
    kinds are left out. ``spread`` (n, *event), standard deviations, is a last column for images, black for 0 and white
    for the largest. False, and nothing written, for what has no picture.
    """
    found = {caption: kind.shown(x, 2) for caption, x in columns.items()}
    shown = {caption: x for caption, x in found.items() if x is not None}
    if not shown:
        return False
    if kind.layout == "sheet":
        content = _images(kind, shown, levels, spread)
    elif kind.layout == "plane":
        content = _points(kind, shown)
    else:
        content = _signals(kind, shown)
    write_whole(path, content)
    return True


def _images(kind: Kind, columns: dict[str, Tensor], levels: int | None, spread: Tensor | None) -> bytes:
    first = next(iter(columns.values()))
    size = first.shape[3:]
    low, high = kind.scale(torch.cat([x.flatten() for x in columns.values()]), levels)
    cells = [_cells(x, size, low, high) for x in columns.values()]
    starts = np.cumsum([0, *(part.shape[1] for part in cells)]).tolist()
    captions = dict(zip(starts, columns, strict=False))
    deviations = None if spread is None else kind.shown(spread)
    if spread is not None and deviations is not None:
        cells.append(_cells(deviations[:, None], size, 0, spread.max().item()))
        captions[starts[-1]] = "deviation"
    pixels = np.concatenate(cells, 1)
    return sheet(pixels.reshape(-1, *pixels.shape[2:]), pixels.shape[1], list(captions)[1:], captions)


def _cells(x: Tensor, size: Sequence[int], low: float, high: float) -> np.ndarray:
    """Images (n, k, channels, height, width) as colored pixels of one size."""
    for axis in (-2, -1):
        repeats = size[axis] // x.shape[axis]
        x = x.repeat_interleave(max(1, repeats), axis).narrow(axis, 0, size[axis])
    x = x.narrow(2, 0, min(3, x.shape[2])).double().expand(-1, -1, 3, -1, -1)
    hidden = x.isnan()
    color = torch.tensor(HIDDEN, dtype=torch.float64).view(3, 1, 1)
    pixels = scaled(x.nan_to_num().numpy(), low, high)
    return np.where(hidden.numpy(), color.numpy(), pixels).astype(np.uint8)


def _points(kind: Kind, columns: dict[str, Tensor]) -> bytes:
    figure, axes = plt.subplots(1, len(columns), figsize=(3 * len(columns), 3), sharex=True, sharey=True, squeeze=False)
    for cell, (caption, x) in zip(axes[0], columns.items(), strict=True):
        cell.set_title(caption, fontsize=9)
        for i, item in enumerate(x):
            kind.draw(cell, item, "guesses", color=f"C{i % 10}")
    return figure_bytes(figure)


def _signals(kind: Kind, columns: dict[str, Tensor]) -> bytes:
    rows = min(MAX_SIGNALS, len(next(iter(columns.values()))))
    shape: dict[str, Any] = {"figsize": (3 * len(columns), 1.2 * rows), "sharey": True, "squeeze": False}
    figure, axes = plt.subplots(rows, len(columns), **shape)
    for cells, (caption, x) in zip(axes.T, columns.items(), strict=True):
        cells[0].set_title(caption, fontsize=9)
        for cell, item in zip(cells, x, strict=False):
            kind.draw(cell, item, "guesses")
            # What is hidden or padded at an end has its place.
            cell.set_xlim(-0.5, item.shape[-1] - 0.5)
    return figure_bytes(figure)
