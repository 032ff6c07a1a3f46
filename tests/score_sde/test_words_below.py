"""Words below images: whole words in lines that fit, and the images themselves as they are."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from score_sde.kinds import KINDS
from score_sde.plots.pictures import drawn
from score_sde.plots.sheet import CELL, WORD_LINES, below, captioned_sheet

FONT = ImageFont.load_default(11)


@pytest.mark.parametrize("words", ["red", "a red heart", "person in a very long manual wheelchair, medium-dark " * 3,
                                   "x" * 300, ""])  # fmt: skip
def test_lines_fit_and_lose_nothing_silently(words):
    lines = below(words, CELL, FONT)
    assert len(lines) <= WORD_LINES
    assert all(FONT.getlength(line) <= CELL for line in lines)
    if any("..." in line for line in lines):
        assert FONT.getlength(words) > CELL
    else:
        assert " ".join(lines) == words.strip()


@pytest.mark.parametrize("channels", [1, 3])
def test_images_stand_above_their_words(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (5, channels, 32, 32)).astype(np.uint8)
    content = captioned_sheet(pixels, ["red heart"] * 5, 3)
    page = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    zoom = -(-CELL // 32)
    step = page.shape[0] // 2
    for i, image in enumerate(pixels):
        left, top = 2 + i % 3 * (32 * zoom + 6), 2 + i // 3 * ((page.shape[0] - 2) // 2)
        found = page[top : top + 32 * zoom : zoom, left : left + 32 * zoom : zoom].transpose(2, 0, 1)
        assert (found == np.broadcast_to(image, (3, 32, 32))).all()
        below_it = page[top + 32 * zoom + 1 : top + step - 2, left : left + 32 * zoom]
        assert below_it.min() < 64
        assert below_it.mean() > 200


def test_many_images_have_no_words():
    x = torch.zeros(49, 1, 4, 4)
    kind = KINDS["image"]
    assert drawn(x, kind=kind, levels=2, words=["a"] * 49) == drawn(x, kind=kind, levels=2)
    assert drawn(x[:48], kind=kind, levels=2, words=["a"] * 48) != drawn(x[:48], kind=kind, levels=2)
