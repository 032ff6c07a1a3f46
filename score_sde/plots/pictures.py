"""Pictures of samples."""

import io
import math
from collections.abc import Collection
from pathlib import Path

import matplotlib
import torch
from torch import Tensor

from score_sde.plots.sheet import scaled, sheet
from sde.files import write_whole

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def picture(x: Tensor, path: Path, *, levels: int | None, labels: Tensor | None = None) -> bool:
    """Samples (n, *event) in data units as a picture: a grid for images and for slices of volumes, a scatter for
    points, lines for signals. False, and nothing written, for shapes that have no picture. Raises FloatingPointError
    for non-finite values.
    """
    _check(x, path)
    content = drawn(x, levels=levels, labels=labels)
    if content is not None:
        write_whole(path, content)
    return content is not None


def drawn(x: Tensor, *, levels: int | None, labels: Tensor | None = None) -> bytes | None:
    """The PNG that ``picture`` writes of finite samples, None for shapes that have no picture."""
    x = shown(x)
    kind = kind_of(tuple(x.shape[1:]))
    if kind == "images":
        return _image_grid(x, levels, min(len(x), 10) if len(x) <= 100 else math.ceil(len(x) ** 0.5))
    if kind == "points":
        return _scatter(x, labels)
    return _lines(x) if kind == "signals" else None


def comparison(x: Tensor, other: Tensor, path: Path, *, levels: int | None) -> bool:
    """Items x (n, *event) and what became of them: images side by side in pairs, points and signals drawn over each
    other. Returns and raises as ``picture`` does."""
    _check(torch.stack([x, other]), path)
    x, other = shown(x), shown(other)
    kind = kind_of(tuple(x.shape[1:]))
    if kind == "images":
        # As many pairs a row as leave the fewest places empty.
        pairs = len(x) if len(x) <= 6 else min((5, 4, 6), key=lambda columns: -len(x) % columns)
        content = _image_grid(torch.stack([x, other], 1).flatten(0, 1), levels, 2 * pairs, range(2, 2 * pairs, 2))
    elif kind == "points":
        figure, axes = plt.subplots(figsize=(5, 5))
        axes.plot(*x.numpy().T, "o", color="0.6", markersize=7, label="data")
        axes.plot(*other.numpy().T, "x", color="C3", markersize=5, label="decoded")
        axes.set_aspect("equal")
        axes.legend()
        content = figure_bytes(figure)
    elif kind == "signals":
        content = _lines(x, other)
    else:
        return False
    write_whole(path, content)
    return True


def strips(x: Tensor, path: Path, *, levels: int | None, background: Tensor | None = None) -> bool:
    """Rows of frames x (rows, frames, *event): a row of images or of signals each, or a line through points in the
    plane, with the data ``background`` (n, 2) behind it. Returns and raises as ``picture`` does."""
    _check(x, path)
    x = shown(x, 2)
    kind, (rows, frames) = kind_of(tuple(x.shape[2:])), x.shape[:2]
    if kind == "images":
        content = _image_grid(x.flatten(0, 1), levels, frames)
    elif kind == "points":
        figure, axes = plt.subplots(figsize=(5, 5))
        if background is not None:
            axes.scatter(*background.numpy().T, s=2, c="0.85", linewidths=0)
        for i, line in enumerate(x.numpy()):
            axes.plot(*line.T, ".-", color=f"C{i % 10}", linewidth=1)
            axes.plot(*line[[0, -1]].T, "o", color=f"C{i % 10}", markersize=7)
        axes.set_aspect("equal")
        content = figure_bytes(figure)
    elif kind == "signals":
        shape = {"figsize": (1.5 * frames, 1.2 * rows), "sharex": True, "sharey": True, "squeeze": False}
        figure, axes = plt.subplots(rows, frames, **shape)
        for cell, signal in zip(axes.flat, x.flatten(0, 1).numpy(), strict=True):
            cell.plot(signal.T, linewidth=0.8)
        content = figure_bytes(figure)
    else:
        return False
    write_whole(path, content)
    return True


def _check(x: Tensor, path: Path) -> None:
    if not x.isfinite().all():
        raise FloatingPointError(f"{path} was not written: the samples are not finite")


def shown(x: Tensor, lead: int = 1) -> Tensor:
    """What a picture can show of items x (*lead, *event): the middle slice of a volume, the first channel of an image
    that is neither gray nor coloured, the first four of a signal, the first two coordinates of a vector."""
    if x.ndim - lead == 4:
        x = x.select(lead + 1, x.shape[lead + 1] // 2)
    most = {1: 2, 2: 4, 3: x.shape[lead] if x.shape[lead] in (1, 3, 4) else 1}.get(x.ndim - lead)
    return x if most is None else x.narrow(lead, 0, min(most, x.shape[lead]))


def kind_of(event: tuple[int, ...]) -> str | None:
    """How items of a shape are drawn, as "images", "points" or "signals"; None where there is no way."""
    if len(event) == 3 and event[0] in (1, 3, 4):
        return "images"
    if event == (2,):
        return "points"
    return "signals" if len(event) == 2 and event[0] <= 4 else None


def _image_grid(x: Tensor, levels: int | None, columns: int, gaps: Collection[int] = ()) -> bytes:
    """Images (n, channels, height, width), ``columns`` a row; a wider gap before each column in ``gaps``."""
    pixels = x.double().numpy()
    low, high = (0, levels - 1) if levels else (pixels.min(), pixels.max())
    return sheet(scaled(pixels, low, high), columns, gaps)


def figure_bytes(figure, kind: str = "png", **options) -> bytes:
    """A matplotlib figure as a file of a kind, after which it is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=110, bbox_inches="tight", **options)
    plt.close(figure)
    return buffer.getvalue()


def _scatter(x: Tensor, labels: Tensor | None) -> bytes:
    figure, axes = plt.subplots(figsize=(5, 5))
    color = {} if labels is None else {"c": labels.numpy(), "cmap": "tab10"}
    axes.scatter(*x.numpy().T, s=60 / len(x) ** 0.4, linewidths=0, **color)
    axes.set_aspect("equal")
    return figure_bytes(figure)


def _lines(x: Tensor, other: Tensor | None = None) -> bytes:
    """The first 16 signals, and over them those of ``other``, dashed."""
    count = min(16, len(x))
    figure, axes = plt.subplots(count, 1, figsize=(8, count), sharex=True, squeeze=False)
    for i, row in enumerate(axes[:, 0]):
        row.plot(x[i].numpy().T, linewidth=0.8)
        if other is not None:
            row.plot(other[i].numpy().T, "--", color="black", linewidth=0.8)
    return figure_bytes(figure)
