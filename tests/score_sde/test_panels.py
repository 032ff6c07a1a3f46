"""Tables of pictures: what is in the cells, read from the file."""

import numpy as np
import pytest
import torch
from PIL import Image

from score_sde.kinds import KINDS, kind_of
from score_sde.plots.panels import HIDDEN, panels

pytestmark = pytest.mark.rendered


def colors(path):
    """How many pixels there are of each color."""
    with Image.open(path) as image:
        values, counts = np.unique(np.asarray(image).reshape(-1, 3), axis=0, return_counts=True)
    return {tuple(value): count for value, count in zip(values.tolist(), counts.tolist(), strict=True)}


def test_images(tmp_path):
    """An input of level 3, half of it measured, a measurement of half the size, two samples, and what they vary by."""
    x = torch.full((2, 1, 1, 4, 4), 3.0)
    measured = x.clone()
    measured[..., :2, :] = torch.nan
    samples = torch.cat([x - 1, x + 1], 1)
    columns = {"input": x, "measured": measured, "small": torch.full((2, 1, 1, 2, 2), 5.0), "samples": samples}
    spread = torch.zeros(2, 1, 4, 4)
    spread[1] = 0.5
    assert panels(columns, tmp_path / "p.png", kind=KINDS["image"], levels=16, spread=spread)
    found, cell = colors(tmp_path / "p.png"), 16 * round(640 / 6 / 5) ** 2
    assert found[HIDDEN] == 2 * cell // 2
    # Captions, whose edges are gray, take a few pixels more.
    level = {k: round(found[(k * 17,) * 3] / cell, 2) for k in (2, 3, 4, 5)}
    assert level == {2: 2, 3: 3, 4: 2, 5: 2}
    assert round(found[255, 255, 255] / cell, 2) == 1, "the largest deviation is white"


def test_gray_beside_color(tmp_path):
    """Continuous values from the lowest to the highest of all columns."""
    red = torch.zeros(1, 1, 3, 4, 4)
    red[:, :, 0] = 4.0
    columns = {"input": red, "gray": torch.full((1, 1, 1, 4, 4), 2.0)}
    assert panels(columns, tmp_path / "p.png", kind=KINDS["image"], levels=None)
    found = colors(tmp_path / "p.png")
    assert found[255, 0, 0] == 16 * round(640 / 2 / 5) ** 2
    # 2 of 0 to 4 is half way, 127.5, and as gray as the background.
    assert found[128, 128, 128] > found[255, 0, 0]


@pytest.mark.parametrize("shape", [(2,), (3, 20), (2, 6, 6, 6), (7,)], ids=str)
def test_other_shapes(tmp_path, shape):
    x = torch.randn((3, 2, *shape), generator=torch.Generator().manual_seed(0))
    hidden = x.clone()
    hidden[..., -1:] = torch.nan
    columns = {"input": x[:, :1], "measured": hidden[:, :1], "samples": x, "other": x.flatten(2)[:, :, :1]}
    assert panels(columns, tmp_path / "p.png", kind=kind_of(shape), levels=None, spread=x[:, 0].abs())
    with Image.open(tmp_path / "p.png") as image:
        image.load()


def test_shapes_without_a_picture(tmp_path):
    assert not panels({"input": torch.zeros(2, 1, 1)}, tmp_path / "p.png", kind=kind_of((1,)), levels=None)
    assert not (tmp_path / "p.png").exists()
