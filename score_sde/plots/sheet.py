"""A sheet of images: cells in rows and columns, with gaps and captions."""

import io
from collections.abc import Collection

import numpy as np

BACKGROUND = 128
CAPTION = 14
"""Height of a line of captions, in pixels."""


def sheet(
    pixels: np.ndarray,
    columns: int,
    gaps: Collection[int] = (),
    captions: dict[int, str] | None = None,
    width: int = 640,
) -> bytes:
    """A PNG of images (n, channels, height, width), uint8, ``columns`` per row, enlarged to about ``width`` where they
    are small; a wider gap before each column in ``gaps``, and ``captions`` above columns by their numbers."""
    from PIL import Image, ImageDraw, ImageFont

    count, channels, height, across = pixels.shape
    zoom = max(1, round(width / columns / (across + 1)))
    rows = -(-count // columns)
    lefts = [2 + i * (across * zoom + 2) + 8 * sum(gap <= i for gap in gaps) for i in range(columns)]
    head = CAPTION if captions else 0
    cells = np.full(
        (head + rows * (height * zoom + 2) + 2, lefts[-1] + across * zoom + 2, channels), BACKGROUND, np.uint8
    )
    for i, image in enumerate(pixels.transpose(0, 2, 3, 1)):
        top, left = head + 2 + i // columns * (height * zoom + 2), lefts[i % columns]
        cells[top : top + height * zoom, left : left + across * zoom] = image.repeat(zoom, 0).repeat(zoom, 1)
    page = Image.fromarray(cells[:, :, 0] if channels == 1 else cells)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default()
    for column, text in (captions or {}).items():
        draw.text((lefts[column], 1), text, (0,) * channels if channels > 1 else 0, font)
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    return buffer.getvalue()
