"""Pictures of samples and of training."""

import io
import json
import math
from pathlib import Path

import matplotlib
import numpy as np
from torch import Tensor

from sde.checkpoint import write_whole

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def picture(x: Tensor, path: Path, *, levels: int | None, labels: Tensor | None = None) -> bool:
    """Samples (n, *event) in data units as a picture: a grid for images, a scatter for points in the plane, lines for
    signals. False, and nothing written, for shapes that have no picture. Raises FloatingPointError for non-finite
    values.
    """
    if not x.isfinite().all():
        raise FloatingPointError(f"{path} was not written: the samples are not finite")
    event = tuple(x.shape[1:])
    if len(event) == 3 and event[0] in (1, 3, 4):
        content = _image_grid(x, levels)
    elif event == (2,):
        content = _scatter(x, labels)
    elif len(event) == 2 and event[0] <= 4:
        content = _lines(x)
    else:
        return False
    write_whole(path, content)
    return True


def _image_grid(x: Tensor, levels: int | None, width: int = 640) -> bytes:
    from PIL import Image

    pixels = x.double().numpy()
    low, high = (0, levels - 1) if levels else (pixels.min(), pixels.max())
    pixels = np.clip((pixels - low) / max(high - low, 1e-12) * 255, 0, 255).round().astype(np.uint8)
    count, channels, height, across = pixels.shape
    columns = min(count, 10) if count <= 100 else math.ceil(count**0.5)
    zoom = max(1, round(width / columns / (across + 1)))
    rows = -(-count // columns)
    sheet = np.full((rows * (height * zoom + 2) + 2, columns * (across * zoom + 2) + 2, channels), 128, np.uint8)
    for i, image in enumerate(pixels.transpose(0, 2, 3, 1)):
        top, left = 2 + i // columns * (height * zoom + 2), 2 + i % columns * (across * zoom + 2)
        sheet[top : top + height * zoom, left : left + across * zoom] = image.repeat(zoom, 0).repeat(zoom, 1)
    buffer = io.BytesIO()
    Image.fromarray(sheet[:, :, 0] if channels == 1 else sheet).save(buffer, "PNG")
    return buffer.getvalue()


def _figure_bytes(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return buffer.getvalue()


def _scatter(x: Tensor, labels: Tensor | None) -> bytes:
    figure, axes = plt.subplots(figsize=(5, 5))
    color = None if labels is None else labels.numpy()
    axes.scatter(*x.numpy().T, s=60 / len(x) ** 0.4, c=color, cmap="tab10", linewidths=0)
    axes.set_aspect("equal")
    return _figure_bytes(figure)


def _lines(x: Tensor) -> bytes:
    count = min(16, len(x))
    figure, axes = plt.subplots(count, 1, figsize=(8, count), sharex=True, squeeze=False)
    for row, signal in zip(axes[:, 0], x.numpy(), strict=False):
        row.plot(signal.T, linewidth=0.8)
    return _figure_bytes(figure)


def curves(metrics: Path, path: Path) -> None:
    """The curves of a metrics file: loss, held-out loss where measured, learning rate."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    figure, axes = plt.subplots(figsize=(7, 4))
    for key, style, label in (
        ("loss", "-", "training loss"),
        ("held_out_loss", "o-", "held-out loss, averaged weights"),
    ):
        points = [(line["step"], line[key]) for line in lines if key in line]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss")
    axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    write_whole(path, _figure_bytes(figure))
