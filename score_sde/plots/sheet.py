"""A sheet of images: cells in rows and columns, with gaps and captions."""

import io
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

BACKGROUND = 128
CAPTION = 14
"""Height of a line of captions, in pixels."""


CELL = 104
"""Least width of an image with words below it, in pixels."""

WORD_LINES = 3
"""Lines of words below an image, at most."""


def below(words: str, width: int, font: Any) -> list[str]:
    """The lines in which words stand below an image of a width in pixels, the last one cut where they are too many."""
    lines: list[str] = []
    for word in words.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    cut, lines = len(lines) > WORD_LINES, lines[:WORD_LINES]
    for number, line in enumerate(lines):
        end = " ..." if cut and number == WORD_LINES - 1 else ""
        while line and font.getlength(line + end) > width:
            line, end = line[:-1], "..."
        lines[number] = line + end
    return lines


def captioned_sheet(pixels: np.ndarray, words: Sequence[str], columns: int) -> bytes:
    """A PNG of images (n, channels, height, width), uint8, ``columns`` per row, enlarged where they are small, with
    words below each."""
    from PIL import Image, ImageDraw, ImageFont

    count, channels, height, across = pixels.shape
    zoom, font = max(1, -(-CELL // across)), ImageFont.load_default(11)
    cell, lines = across * zoom, [below(text, across * zoom, font) for text in words]
    step = height * zoom + CAPTION * max(1, *(len(own) for own in lines)) + 4
    page = Image.new("RGB", (2 + columns * (cell + 6), 2 + -(-count // columns) * step), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    for i, image in enumerate(pixels.transpose(0, 2, 3, 1)):
        left, top = 2 + i % columns * (cell + 6), 2 + i // columns * step
        large = image.repeat(zoom, 0).repeat(zoom, 1)
        page.paste(Image.fromarray(large[:, :, 0] if channels == 1 else large), (left, top))
        draw.rectangle((left - 1, top - 1, left + cell, top + height * zoom), outline=(BACKGROUND,) * 3)
        for number, line in enumerate(lines[i]):
            draw.text((left, top + height * zoom + 1 + CAPTION * number), line, (0, 0, 0), font)
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    return buffer.getvalue()


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
