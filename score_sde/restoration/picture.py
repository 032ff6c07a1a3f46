"""The picture of a restoration: what each item is, what was measured of it, and its samples."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from score_sde.plots.panels import panels
from score_sde.plots.restored import points, signals
from score_sde.run.folder import Run
from sde.data.sizes import cut


def draw_restored(
    run: Run,
    truth: Tensor | None,
    y: Tensor | None,
    samples: Tensor,
    path: Path,
    names: Sequence[int],
    levels: int | None,
    sizes: Tensor | None = None,
) -> bool:
    """Write the picture of items with these ``names``, of ``levels`` where they are quantized: the ``truth`` (n,
    *event) and what was measured, ``y``, where they are known, and the ``samples`` (n, k, *event); of padded items what
    is real.

    Signals have the band of their samples, points the names of their columns; others are a row per item, with mean and
    standard deviation as well. False, and nothing written, for what has no picture."""
    if sizes is not None:
        rows = torch.arange(len(samples)).repeat_interleave(samples.shape[1])
        samples = cut(samples.flatten(0, 1), sizes[rows], math.nan).view_as(samples)
        truth = None if truth is None else cut(truth, sizes, math.nan)
        y = cut(y, sizes, math.nan) if y is not None and y.shape[1:] == samples.shape[2:] else y
    shape = tuple(samples.shape[2:])
    if run.kind.layout == "curves" and len(shape) == 2:
        signals(truth, y, samples, path, names)
        return True
    if run.kind.layout == "plane":
        points(truth, y, samples, path, run.about.get("columns"))
        return True
    several = samples.shape[1] > 1
    every = {"input": truth, "measured": y, "samples": samples, "mean": samples.mean(1) if several else None}
    columns = {caption: x if caption == "samples" else x[:, None] for caption, x in every.items() if x is not None}
    return panels(columns, path, kind=run.kind, levels=levels, spread=samples.std(1) if several else None)
