"""Restored items that are no pictures: signals with truth and band, points by pairs of columns."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from score_sde.plots.pictures import figure_bytes, plt
from sde.files import write_whole

BAND = (0.1, 0.9)
"""Probabilities of the quantiles between which the band of the samples is."""
MAX_ROWS = 48
"""Axes at most, one for each channel of an item; of as many items as fit."""
MAX_PAIRS = 8
"""Pairs of columns at most."""
TRUTH: dict[str, Any] = {"color": "black", "linewidth": 0.9, "linestyle": "--", "label": "truth"}


def signals(truth: Tensor | None, measured: Tensor | None, samples: Tensor, path: Path, names: Sequence[int]) -> None:
    """All channels of signals, one above the other: ``samples`` (n, k, channels, length) as the band between their
    quantiles, with their mean and a few of them; the ``truth`` and what was ``measured`` (n, channels, some length),
    NaN where nothing is known, at its places. ``names`` are the items' numbers."""
    count, k, channels, length = samples.shape
    shown = max(1, min(count, MAX_ROWS // channels))
    rows = shown * min(channels, MAX_ROWS)
    size: dict[str, Any] = {"figsize": (9, 0.5 + 1.3 * rows), "layout": "constrained", "squeeze": False}
    figure, grid = plt.subplots(rows, 1, sharex=True, **size)
    low, high = torch.quantile(samples.double(), torch.tensor(BAND, dtype=torch.float64), 1)
    at = range(length)
    for row, axes in enumerate(grid[:, 0]):
        i, c = divmod(row, min(channels, MAX_ROWS))
        draws = samples[i, :, c].double()
        if k > 1:
            share = f"{100 * (BAND[1] - BAND[0]):.0f} % of the samples"
            axes.fill_between(at, low[i, c], high[i, c], color="C0", alpha=0.25, linewidth=0, label=share)
        for draw in draws[:3]:
            axes.plot(at, draw, color="C0", linewidth=0.5, alpha=0.6)
        axes.plot(at, draws.mean(0), color="C0", linewidth=1.2, label="their mean" if k > 1 else "the sample")
        if truth is not None:
            axes.plot(at, truth[i, c], **TRUTH)
        if measured is not None and measured.shape[1] == channels:
            step = length / measured.shape[2]
            places = [(j + 0.5) * step - 0.5 for j in range(measured.shape[2])]
            axes.plot(places, measured[i, c], ".", color="C1", markersize=3, label="measured")
        axes.set_ylabel(f"item {names[i]}" + f"\nchannel {c}" * (channels > 1), fontsize=8)
        axes.tick_params(labelsize=7)
        axes.margins(x=0.01)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)
    if shown < count:
        grid[-1, 0].set_xlabel(f"the first {shown} of {count} items", fontsize=8)
    write_whole(path, figure_bytes(figure))


def points(
    truth: Tensor | None, measured: Tensor | None, samples: Tensor, path: Path, columns: Sequence[str] | None
) -> None:
    """Points (n, k, dim) by pairs of columns, those of an item in one color with its ``truth`` as a cross; where one of
    two is ``measured`` (n, dim), NaN where not, a line. ``columns`` are their names, by default numbers from 1."""
    dim = samples.shape[2]
    titles = columns or [f"column {i + 1}" for i in range(dim)]
    pairs = [(i, min(i + 1, dim - 1)) for i in range(0, dim, 2)] if dim > 1 else [(0, 0)]
    shown = pairs[:MAX_PAIRS]
    across = min(len(shown), 4)
    down = math.ceil(len(shown) / across)
    size: dict[str, Any] = {"figsize": (3.4 * across, 3.4 * down + 0.4), "layout": "constrained", "squeeze": False}
    figure, grid = plt.subplots(down, across, **size)
    for axes in grid.flat[len(shown) :]:
        axes.axis("off")
    for axes, (a, b) in zip(grid.flat, shown, strict=False):
        # The last column of an odd number is beside the one before it.
        a = a - 1 if a == b and a else a
        for i, item in enumerate(samples):
            color = f"C{i % 10}"
            axes.plot(item[:, a], item[:, b], ".", color=color, markersize=5, alpha=0.7, label="samples" * (not i))
            if truth is not None:
                own = {"color": color, "markersize": 9, "markeredgewidth": 2, "label": "truth" * (not i)}
                axes.plot(truth[i, a], truth[i, b], "x", **own)
            for line, known, other in ((axes.axvline, a, b), (axes.axhline, b, a)):
                if measured is not None and measured[i, other].isnan() and not measured[i, known].isnan():
                    own = {"color": color, "linewidth": 0.7, "alpha": 0.6, "label": "measured" * (not i)}
                    line(measured[i, known].item(), **own)
        axes.set_xlabel(titles[a], fontsize=9)
        axes.set_ylabel(titles[b], fontsize=9)
    legends = [axes.get_legend_handles_labels() for axes in grid.flat]
    handles = {label: handle for legend in legends for handle, label in zip(*legend, strict=True) if label}
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=3, fontsize=8)
    if len(shown) < len(pairs):
        grid[0, 0].set_title(f"the first {2 * len(shown)} of {dim} columns", fontsize=8, loc="left")
    write_whole(path, figure_bytes(figure))
