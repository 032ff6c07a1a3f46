"""Tables of pictures: a row an item, a column what became of it."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from score_sde.plots.pictures import figure_bytes, kind_of, plt, shown
from score_sde.plots.sheet import scaled, sheet
from sde.files import write_whole

HIDDEN = (90, 115, 165)
"""The colour of entries that are NaN."""

MOST_SIGNALS = 16


def panels(columns: dict[str, Tensor], path: Path, *, levels: int | None, spread: Tensor | None = None) -> bool:
    """Columns by their captions, of items in data units: each (n, k, *event) with k pictures of every item side by
    side, or over each other where they are points or signals. NaN stands for what is not known. The first column says
    what kind of picture it is; images of another size or with another number of channels are brought to its own, and
    columns of other kinds are left out. ``spread`` (n, *event), standard deviations, is a last column for images, black
    for 0 and white for the largest. False, and nothing written, for shapes that have no picture.
    """
    columns = {caption: shown(x, 2) for caption, x in columns.items()}
    kind = kind_of(tuple(next(iter(columns.values())).shape[2:]))
    columns = {caption: x for caption, x in columns.items() if kind_of(tuple(x.shape[2:])) == kind}
    if kind == "images":
        content = _images(columns, levels, spread)
    elif kind == "points":
        content = _points(columns)
    elif kind == "signals":
        content = _signals(columns)
    else:
        return False
    write_whole(path, content)
    return True


def _images(columns: dict[str, Tensor], levels: int | None, spread: Tensor | None) -> bytes:
    first = next(iter(columns.values()))
    size = first.shape[3:]
    values = torch.cat([x[x.isfinite()] for x in columns.values()])
    low, high = (0, levels - 1) if levels else (values.min().item(), values.max().item())
    cells = [_cells(x, size, low, high) for x in columns.values()]
    starts = np.cumsum([0, *(part.shape[1] for part in cells)]).tolist()
    captions = dict(zip(starts, columns, strict=False))
    if spread is not None:
        cells.append(_cells(shown(spread)[:, None], size, 0, spread.max().item()))
        captions[starts[-1]] = "deviation"
    pixels = np.concatenate(cells, 1)
    return sheet(pixels.reshape(-1, *pixels.shape[2:]), pixels.shape[1], list(captions)[1:], captions)


def _cells(x: Tensor, size: tuple[int, int], low: float, high: float) -> np.ndarray:
    """Images (n, k, channels, height, width) as coloured pixels of one size."""
    for axis in (-2, -1):
        repeats = size[axis] // x.shape[axis]
        x = x.repeat_interleave(max(1, repeats), axis).narrow(axis, 0, size[axis])
    x = x.narrow(2, 0, min(3, x.shape[2])).double().expand(-1, -1, 3, -1, -1)
    hidden = x.isnan()
    colour = torch.tensor(HIDDEN, dtype=torch.float64).view(3, 1, 1)
    pixels = scaled(x.nan_to_num().numpy(), low, high)
    return np.where(hidden.numpy(), colour.numpy(), pixels).astype(np.uint8)


def _points(columns: dict[str, Tensor]) -> bytes:
    figure, axes = plt.subplots(1, len(columns), figsize=(3 * len(columns), 3), sharex=True, sharey=True, squeeze=False)
    for cell, (caption, x) in zip(axes[0], columns.items(), strict=True):
        cell.set_title(caption, fontsize=9)
        for i, item in enumerate(x.numpy()):
            style = {"color": f"C{i % 10}"}
            cell.plot(*item.T, "o", markersize=4, **style)
            # Where one coordinate is known, the points are those of a line.
            for line, at, other in ((cell.axvline, 0, 1), (cell.axhline, 1, 0)):
                for point in item[np.isnan(item[:, other]) & ~np.isnan(item[:, at])]:
                    line(point[at], linewidth=0.8, **style)
    return figure_bytes(figure)


def _signals(columns: dict[str, Tensor]) -> bytes:
    rows = min(MOST_SIGNALS, len(next(iter(columns.values()))))
    shape = {"figsize": (3 * len(columns), 1.2 * rows), "sharey": True, "squeeze": False}
    figure, axes = plt.subplots(rows, len(columns), **shape)
    for cells, (caption, x) in zip(axes.T, columns.items(), strict=True):
        cells[0].set_title(caption, fontsize=9)
        for cell, item in zip(cells, x.flatten(1, 2).numpy(), strict=False):
            cell.plot(item.T, ".-" if np.isnan(item).any() else "-", linewidth=0.8, markersize=2)
    return figure_bytes(figure)
