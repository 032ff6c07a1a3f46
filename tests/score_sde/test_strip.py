"""Strips: what is drawn of the same samples under several settings."""

import numpy as np
import pytest
import torch

from score_sde.kinds import KINDS, kind_of
from score_sde.plots import strip as module
from score_sde.plots.strip import strip

pytestmark = pytest.mark.rendered

NAMES = ["guidance scale 1", "guidance scale 2.5", "guidance scale 4"]


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, before they become files."""
    drawn = []
    monkeypatch.setattr(module, "figure_bytes", lambda figure: drawn.append(figure) or b"png")
    return drawn


def titles(figure):
    return [text for axes in figure.axes if (text := axes.get_title() or axes.get_title(loc="left"))]


@pytest.mark.parametrize(("count", "shape"), [(5, (10, 5 * 10)), (40, (4 * 10, 10 * 10))])
def test_images(tmp_path, figures, count, shape):
    """A row of few images or a block of many, each under its name, its pixels where they belong."""
    x = torch.randint(17, (3, count, 1, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    assert strip(x, NAMES, tmp_path / "s.png", kind=KINDS["image"], levels=17)
    (figure,) = figures
    assert titles(figure) == NAMES
    for axes, images in zip(figure.axes, x, strict=False):
        block = axes.images[0].get_array()
        assert block.shape == (shape[0] + 2, shape[1] + 2)
        last = count - 1
        row, column = (0, last) if count <= 16 else divmod(last, 10)
        pixels = block[2 + 10 * row : 10 + 10 * row, 2 + 10 * column : 10 + 10 * column]
        np.testing.assert_allclose(pixels, images[last, 0] / 16, atol=0.003)


def test_points_share_their_axes(tmp_path, figures):
    x = torch.randn(5, 30, 2, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 6).view(5, 1, 1)
    names, labels = [f"scale {i}" for i in range(5)], torch.arange(30) % 3
    assert strip(x, names, tmp_path / "s.png", kind=KINDS["point"], levels=None, labels=labels)
    (figure,) = figures
    assert titles(figure) == [f"scale {i}" for i in range(5)]
    for axes, points in zip(figure.axes, x, strict=False):
        np.testing.assert_allclose(axes.collections[0].get_offsets(), points)
        assert axes.get_xlim() == figure.axes[0].get_xlim()


def test_signals(tmp_path, figures):
    x = torch.randn(3, 20, 2, 9, generator=torch.Generator().manual_seed(0))
    assert strip(x, NAMES, tmp_path / "s.png", kind=KINDS["signal"], levels=None)
    (figure,) = figures
    assert titles(figure) == NAMES
    cells = np.array(figure.axes).reshape(8, 3)
    for row, column in ((0, 0), (7, 2)):
        found = np.stack([line.get_ydata() for line in cells[row, column].lines])
        np.testing.assert_allclose(found, x[column, row])


@pytest.mark.parametrize(("event", "drawn"), [
    ((5,), True), ((3, 8, 8), True), ((2, 9, 10), True), ((1, 4, 8, 8), True), ((7, 5), True), ((1, 2, 3, 4, 5), False),
])  # fmt: skip
def test_every_shape(tmp_path, event, drawn):
    x = torch.randn(2, 3, *event, generator=torch.Generator().manual_seed(0))
    assert strip(x, NAMES[:2], tmp_path / "s.png", kind=kind_of(event), levels=None) is drawn
    assert (tmp_path / "s.png").exists() is drawn
