"""Pictures of samples."""

import io
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from torch import Tensor

from score_sde.kinds.base import Kind
from score_sde.kinds.image import scaled
from score_sde.plots.sheet import BACKGROUND, captioned_sheet, sheet
from sde.data.sizes import cut
from sde.files import write_whole

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Limits = tuple[np.ndarray, np.ndarray]
"""The lowest and the highest value of an axis, or of black and white, that pictures have in common."""
MARGIN = 0.3
"""Share of the data's range that lies on either side of it."""
MAX_WITH_WORDS = 48
"""Images that have their words below them, at most."""
MAX_CURVES = 16
"""Items with axes for each that are drawn."""


def picture(
    x: Tensor,
    path: Path,
    *,
    kind: Kind,
    levels: int | None,
    labels: Tensor | None = None,
    sizes: Tensor | None = None,
    words: Sequence[str] | None = None,
) -> bool:
    """Samples (n, *event) in data units as a picture, in the layout of their kind: a grid for images and for slices of
    volumes, a scatter for points, lines for signals; of padded ones, by their ``sizes`` (n,), what is real. Below each
    of up to MAX_WITH_WORDS images stand its ``words``, where there are any. False, and nothing written, for what has no
    picture. Raises FloatingPointError for non-finite values.
    """
    _check(x, path)
    content = drawn(x, kind=kind, levels=levels, labels=labels, sizes=sizes, words=words)
    if content is not None:
        write_whole(path, content)
    return content is not None


def drawn(
    x: Tensor,
    *,
    kind: Kind,
    levels: int | None,
    labels: Tensor | None = None,
    sizes: Tensor | None = None,
    limits: Limits | None = None,
    words: Sequence[str] | None = None,
) -> bytes | None:
    """The PNG that ``picture`` writes of finite samples, None for what has no picture; within ``limits``, those of
    ``limits_of``, where several pictures are to be compared."""
    shown = kind.shown(cut(x, sizes, math.nan))
    if shown is None:
        return None
    if kind.layout == "sheet":
        if words is not None and len(x) <= MAX_WITH_WORDS:
            return _image_grid(shown, kind, levels, min(len(x), 8), limits=limits, words=words)
        columns = min(len(x), 10) if len(x) <= 100 else math.ceil(len(x) ** 0.5)
        return _image_grid(shown, kind, levels, columns, limits=limits)
    if kind.layout == "plane":
        figure, axes = plt.subplots(figsize=(5, 5))
        kind.draw(axes, shown, labels=labels)
        axes.set_aspect("equal")
        if limits is not None:
            (left, bottom), (right, top) = limits
            axes.set(xlim=(left, right), ylim=(bottom, top))
        return figure_bytes(figure)
    return _curves(kind, {"items": shown}, limits)


def limits_of(x: Tensor, *, kind: Kind, levels: int | None, sizes: Tensor | None = None) -> Limits | None:
    """The ends that pictures of other items have in common where items x (n, *event) are what they should be like:
    black and white, or those of the axes, MARGIN of the range around it; None for what has no picture."""
    shown = kind.shown(cut(x, sizes, math.nan))
    if shown is None:
        return None
    low, high = (np.asarray(end, dtype=float) for end in kind.scale(shown.double(), levels))
    # Items that are all equal have a range of none.
    margin = 0.0 if kind.layout == "sheet" else MARGIN * np.where(high > low, high - low, np.abs(high).clip(1.0))
    return low - margin, high + margin


def outside(x: Tensor, limits: Limits, *, kind: Kind) -> int:
    """How many points of x (n, *event), those of a plane, are beyond the limits; 0 in other layouts."""
    shown = kind.shown(x) if kind.layout == "plane" else None
    if shown is None:
        return 0
    low, high = (torch.as_tensor(end) for end in limits)
    return int(((shown < low) | (shown > high)).any(1).sum())


def comparison(
    x: Tensor,
    other: Tensor,
    path: Path,
    *,
    kind: Kind,
    levels: int | None,
    sizes: Tensor | None = None,
    words: Sequence[str] | None = None,
) -> bool:
    """Items x (n, *event) and what became of them: images side by side in pairs, points and signals drawn over each
    other; of padded ones, by their ``sizes`` (n,), what is real. Below the second of up to MAX_WITH_WORDS / 2 pairs
    stand its ``words``, where there are any. Returns and raises as ``picture`` does."""
    _check(torch.stack([x, other]), path)
    first, second = (kind.shown(cut(items, sizes, math.nan)) for items in (x, other))
    if first is None or second is None:
        return False
    if kind.layout == "sheet":
        # As many pairs per row as leave the fewest places empty.
        pairs = len(x) if len(x) <= 6 else min((5, 4, 6), key=lambda columns: -len(x) % columns)
        both = torch.stack([first, second], 1).flatten(0, 1)
        if words is not None and len(both) <= MAX_WITH_WORDS:
            below = [text for word in words for text in ("", word)]
            content = _image_grid(both, kind, levels, 2 * min(pairs, 4), words=below)
        else:
            content = _image_grid(both, kind, levels, 2 * pairs, range(2, 2 * pairs, 2))
    elif kind.layout == "plane":
        figure, axes = plt.subplots(figsize=(5, 5))
        kind.draw(axes, first, "truth")
        kind.draw(axes, second, "other")
        axes.set_aspect("equal")
        axes.legend()
        content = figure_bytes(figure)
    else:
        content = _curves(kind, {"truth": first, "other": second})
    write_whole(path, content)
    return True


def strips(
    x: Tensor,
    path: Path,
    *,
    kind: Kind,
    levels: int | None,
    background: Tensor | None = None,
    sizes: Tensor | None = None,
) -> bool:
    """Rows of frames x (rows, frames, *event): a row of images or of signals each, or a line through points in the
    plane, with the data ``background`` (n, *event) behind it; of padded frames, by their ``sizes`` (rows * frames,),
    what is real. Returns and raises as ``picture`` does."""
    _check(x, path)
    shown = kind.shown(cut(x.flatten(0, 1), sizes, math.nan).view_as(x), 2)
    if shown is None:
        return False
    rows, frames = x.shape[:2]
    if kind.layout == "sheet":
        content = _image_grid(shown.flatten(0, 1), kind, levels, frames)
    elif kind.layout == "plane":
        figure, axes = plt.subplots(figsize=(5, 5))
        behind = None if background is None else kind.shown(background)
        if behind is not None:
            kind.draw(axes, behind, "background")
        for i, line in enumerate(shown):
            kind.draw(axes, line, "path", color=f"C{i % 10}")
        axes.set_aspect("equal")
        content = figure_bytes(figure)
    else:
        shape: dict[str, Any] = {
            "figsize": (1.5 * frames, 1.2 * rows),
            "sharex": True,
            "sharey": True,
            "squeeze": False,
        }
        figure, axes = plt.subplots(rows, frames, **shape)
        for cell, item in zip(axes.flat, shown.flatten(0, 1), strict=True):
            kind.draw(cell, item[None])
        content = figure_bytes(figure)
    write_whole(path, content)
    return True


def _check(x: Tensor, path: Path) -> None:
    if not x.isfinite().all():
        raise FloatingPointError(f"{path} was not written: the samples are not finite")


def _image_grid(
    shown: Tensor,
    kind: Kind,
    levels: int | None,
    columns: int,
    gaps: Collection[int] = (),
    limits: Limits | None = None,
    words: Sequence[str] | None = None,
) -> bytes:
    """Images (n, channels, height, width), ``columns`` per row; a wider gap before each column in ``gaps``, or
    ``words`` below each image; black and white are the limits."""
    low, high = kind.scale(shown.double(), levels) if limits is None else map(float, limits)
    pixels = scaled(shown.double().nan_to_num().numpy(), low, high)
    # What is padded looks like what lies between images.
    pixels = np.where(shown.isnan().numpy(), np.uint8(BACKGROUND), pixels)
    return sheet(pixels, columns, gaps) if words is None else captioned_sheet(pixels, words, columns)


def figure_bytes(figure, kind: str = "png", **options) -> bytes:
    """A matplotlib figure as a file of a kind, after which it is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=110, bbox_inches="tight", **options)
    plt.close(figure)
    return buffer.getvalue()


def _curves(kind: Kind, sets: dict[str, Tensor], limits: Limits | None = None) -> bytes:
    """The first items of sets (n, ...) by their role, each on axes of its own, one set over the other."""
    count = min(MAX_CURVES, *(len(shown) for shown in sets.values()))
    figure, axes = plt.subplots(count, 1, figsize=(8, count), sharex=True, squeeze=False)
    for i, row in enumerate(axes[:, 0]):
        for role, shown in sets.items():
            kind.draw(row, shown[i : i + 1], role)
        if limits is not None:
            row.set_ylim(*(end.item() for end in limits))
    return figure_bytes(figure)
