"""The sheet: captions, each above a real picture, the one drawn, and the training image nearest to that."""

import io
import textwrap
from collections.abc import Sequence

import numpy as np

SIDE = 64
"""Pixels per side that a picture is enlarged to."""
GAP = 2
LINE = 12
"""Height of a line of text, in pixels; a caption has at most two."""


def sheet(captions: Sequence[str], pictures: Sequence[np.ndarray], heads: Sequence[str], columns: int = 4) -> bytes:
    """A PNG of cells in so many columns, one for each caption: above it, in two lines at most, and below a picture of
    each of several sets, all (n, 3, height, width), uint8, whose names are the ``heads`` of the columns."""
    from PIL import Image, ImageDraw, ImageFont

    font, across = ImageFont.load_default(), SIDE + GAP
    width, height = len(pictures) * across + 4 * GAP, 2 * LINE + SIDE + 4 * GAP
    page = Image.new("RGB", (columns * width, LINE + GAP + -(-len(captions) // columns) * height), "white")
    draw = ImageDraw.Draw(page)
    for left in range(0, columns * width, width):
        for number, head in enumerate(heads):
            draw.text((left + number * across, 0), head, "gray", font)
    for i, caption in enumerate(captions):
        left, top = i % columns * width, LINE + GAP + i // columns * height
        lines = textwrap.wrap(caption, width // 6, max_lines=2, placeholder=" ...")
        # The last line stands at the pictures.
        for number, line in enumerate(reversed(lines)):
            draw.text((left, top + (1 - number) * LINE - 1), line, "black", font)
        for number, images in enumerate(pictures):
            image = Image.fromarray(images[i].transpose(1, 2, 0)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            page.paste(image, (left + number * across, top + 2 * LINE))
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    return buffer.getvalue()
