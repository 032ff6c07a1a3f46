"""Colors of classes and of samplers, and the scale that the tiles of a comparison have in common."""

from itertools import combinations
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from samplers import SAMPLERS
from score_sde.kinds import KINDS
from score_sde.kinds.palette import FIRST, NO_CLASS, class_color, class_colors
from score_sde.pages.charts import FIRST as COMPARED
from score_sde.pages.charts import style_of
from score_sde.plots.pictures import MARGIN, drawn, limits_of, outside

pytestmark = pytest.mark.rendered


def test_a_class_has_its_own_color():
    found = np.array([class_color(label) for label in range(40)])
    apart = np.linalg.norm(found[:, None] - found[None], axis=-1)[np.triu_indices(40, 1)]
    assert apart.min() > 0.05
    assert [class_color(label) for label in range(10)] == [to_rgb(color) for color in FIRST]
    assert class_colors(torch.tensor([3, -1, 12, 3])).tolist() == [
        list(color) for color in (class_color(3), to_rgb(NO_CLASS), class_color(12), class_color(3))
    ]


@pytest.mark.parametrize("labels", [[0, 1, 2], [1], [1, 1, 9], [1, -1, 30]])
def test_points_of_a_class_look_the_same_beside_any_others(labels):
    figure, axes = plt.subplots()
    KINDS["point"].draw(axes, torch.randn(len(labels), 2), labels=torch.tensor(labels))
    colors = axes.collections[0].get_facecolors()
    np.testing.assert_allclose(colors[labels.index(1), :3], to_rgb(FIRST[1]))
    plt.close(figure)


def test_a_sampler_looks_the_same_on_every_page():
    styles = {name: style_of(name) for name in (*SAMPLERS, "auto")}
    assert len({styles[name]["color"] for name in COMPARED}) == len(COMPARED)
    for one, other in combinations(styles.values(), 2):
        assert (one["color"], one["marker"], one["linestyle"]) != (other["color"], other["marker"], other["linestyle"])


def test_limits_are_those_of_the_data():
    point, signal, image = (KINDS[name] for name in ("point", "signal", "image"))
    x = torch.tensor([[0.0, -1.0], [2.0, 3.0]])
    low, high = limits_of(x, kind=point, levels=None)
    np.testing.assert_allclose([low, high], [[-2 * MARGIN, -1 - 4 * MARGIN], [2 + 2 * MARGIN, 3 + 4 * MARGIN]])
    assert outside(torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, -9.0]]), (low, high), kind=point) == 2
    low, high = limits_of(torch.tensor([[[1.0, 5.0]]]), kind=signal, levels=None)
    assert (low.item(), high.item()) == pytest.approx((1 - 4 * MARGIN, 5 + 4 * MARGIN))
    assert [end.item() for end in limits_of(torch.rand(3, 1, 2, 2), kind=image, levels=8)] == [0, 7]
    low, high = limits_of(torch.ones(4, 2), kind=point, levels=None)
    assert (high > low).all(), "of items that are all equal"
    assert limits_of(torch.ones(4, 1), kind=point, levels=None) is None


def test_tiles_have_one_scale(monkeypatch, tmp_path):
    """The pixels of images, and the ends of axes, are those of the limits, whatever else is drawn."""
    limits = np.asarray(0.0), np.asarray(1.0)
    for bright in (1.0, 50.0):
        x = torch.tensor([[[[0.5]]], [[[bright]]]])
        (tmp_path / "x.png").write_bytes(drawn(x, kind=KINDS["image"], levels=None, limits=limits))
        with Image.open(tmp_path / "x.png") as opened:
            values = {value for _, value in opened.getcolors()}
        assert {128, 255} <= values
    seen = []
    monkeypatch.setattr("score_sde.plots.pictures.figure_bytes", lambda figure: seen.append(figure) or b"")
    ends = np.array([-1.0, -2.0]), np.array([3.0, 4.0])
    for far in (1.0, 100.0):
        drawn(far * torch.ones(3, 2), kind=KINDS["point"], levels=None, limits=ends)
        drawn(far * torch.ones(3, 1, 4), kind=KINDS["signal"], levels=None, limits=(ends[0][:1], ends[1][:1]))
    spans = [SimpleNamespace(x=figure.axes[0].get_xlim(), y=figure.axes[0].get_ylim()) for figure in seen]
    assert [spans[i].x for i in (0, 2)] == [(-1, 3), (-1, 3)]
    assert [spans[i].y for i in (0, 2)] == [(-2, 4), (-2, 4)]
    assert [spans[i].y for i in (1, 3)] == [(-1, 3), (-1, 3)]
    for figure in seen:
        plt.close(figure)
