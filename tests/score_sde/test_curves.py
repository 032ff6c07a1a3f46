"""Charts: what is drawn of which lines, and that thinning and smoothing leave the numbers right."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from score_sde.plots.chart import chart_svg
from score_sde.plots.curves import CHARTS, MAX_POINTS, curves, present, series, smoothed

pytestmark = pytest.mark.rendered

BY_NAME = {chart.key: chart for chart in CHARTS}
OLD = [{"step": 50, "loss": 0.5, "lr": 0.001, "items_per_second": 700.0}, {"step": 100, "held_out_loss": 0.4}]


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def drawn(axes, key, lines):
    """Label -> (x, y) of the curves of a chart."""
    BY_NAME[key].draw(axes, lines)
    return {line.get_label(): tuple(np.asarray(v, float).tolist() for v in line.get_data()) for line in axes.lines}


def test_series():
    lines = [{"step": 1, "loss": 2.0}, {"step": 2, "nearest": {"ratio": 0.5}}, {"step": 3, "loss": None, "nearest": {}},
             {"step": 4, "loss": 0.0, "nearest": {"ratio": None}}, {"step": 5, "nearest": None}]  # fmt: skip
    assert [v.tolist() for v in series(lines, "loss")] == [[1, 4], [2, 0]]
    assert [v.tolist() for v in series(lines, "nearest/ratio")] == [[2], [0.5]]
    assert [len(v) for v in series(lines, "lr")] == [0, 0]


def test_smoothing():
    """Straight lines stay straight, ends included where their mean is; a spike spreads over its window."""
    assert smoothed(np.array([3.0])) == [3.0]
    assert smoothed(np.full(1000, 2.0)) == pytest.approx(np.full(1000, 2.0))
    line = smoothed(np.arange(1000.0))
    assert line[10:-10] == pytest.approx(np.arange(10, 990))
    assert line[[0, -1]] == pytest.approx([5, 994])
    spike = smoothed(np.eye(1, 1000, 500)[0])
    assert spike.nonzero()[0].tolist() == list(range(490, 511))
    assert spike.sum() == pytest.approx(1)


def test_long_curves_are_thinned_and_keep_their_ends(axes):
    lines = [{"step": n, "items_per_second": 2.0 * n} for n in range(1, 10_001)]
    BY_NAME["items_per_second"].draw(axes, lines)
    x, y = axes.lines[0].get_data()
    assert (len(x), x[0], x[-1]) == (MAX_POINTS, 1, 10_000)
    assert np.array_equal(y, 2 * x)


def test_losses(axes):
    lines = [*OLD, {"step": 150, "held_out_loss": 0.3, "held_out_loss_raw": 0.35}]
    found = drawn(axes, "loss", lines)
    assert found["training"] == ([50], [0.5])
    assert found["held-out, averaged weights"] == ([100, 150], [0.4, 0.3])
    assert found["held-out, raw weights"] == ([150], [0.35])
    assert axes.get_yscale() == "log"


def test_skipped_steps_are_marked_where_their_number_grows(axes):
    skipped = [0, 0, 2, 2, 3]
    lines = [{"step": 10 * i, "grad_norm": 1.0 if i != 2 else None, "skipped": n} for i, n in enumerate(skipped)]
    assert drawn(axes, "grad_norm", lines)["steps skipped, 3 in all"][0] == [20, 40]
    axes.clear()
    assert not any("skipped" in label for label in drawn(axes, "grad_norm", lines[:2]))


@pytest.mark.parametrize(("count", "steps"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (8, [0, 4, 7])])
def test_noise_levels_of_the_first_middle_and_last_measurement(axes, count, steps):
    lines = [
        {
            "step": n,
            "by_noise": [{"noise_level": 0.1, "ema": n, "raw": None}, {"noise_level": 2.0, "ema": n + 0.5, "raw": 9.0}],
        }
        for n in range(count)
    ]
    found = drawn(axes, "by_noise", [*OLD, *lines])
    assert found.pop(f"step {count - 1}, raw")[1][1] == 9
    assert found == {f"step {n}, averaged": ([0.1, 2.0], [n, n + 0.5]) for n in steps}


def test_distances(axes):
    nearest = {"median": 0.5, "smallest": 0.2, "held_out_median": 0.6, "held_out_smallest": 0.3, "ratio": 0.8}
    found = drawn(axes, "nearest", [*OLD, {"step": 7, "nearest": nearest}])
    assert {label: y for label, (x, y) in found.items() if x == [7]} == {
        "samples, median": [0.5], "samples, smallest": [0.2], "held-out items, median": [0.6],
        "held-out items, smallest": [0.3]}  # fmt: skip


@pytest.mark.parametrize("key", BY_NAME)
def test_a_single_value_is_seen(axes, key):
    """As a point, where there are no two for a line; two lines at one step are told apart."""
    distances = {"median": 0.5, "smallest": 0.2, "held_out_median": 0.6, "held_out_smallest": 0.3}
    line = {"step": 50, "loss": 0.5, "lr": 0.001, "items_per_second": 700.0, "grad_norm": 1.0, "nearest": distances,
            "by_noise": [{"noise_level": 0.1, "ema": 0.5, "raw": 0.5}]}  # fmt: skip
    BY_NAME[key].draw(axes, [line])
    assert axes.lines
    assert all(line.get_marker() != "None" for line in axes.lines if len(line.get_xdata()) == 1)
    if key == "nearest":
        assert len({(line.get_color(), line.get_marker()) for line in axes.lines}) == 4


def test_charts_without_numbers_are_left_out(tmp_path):
    assert [chart.key for chart in present(CHARTS, OLD)] == ["loss", "lr", "items_per_second"]
    assert present(CHARTS, [{"step": 1, "loss": None, "by_noise": [], "nearest": {}}]) == []
    heights = []
    for lines in (OLD, [*OLD, {"step": 100, "grad_norm": 0.5}]):
        curves(lines, tmp_path / "curves.png")
        with Image.open(tmp_path / "curves.png") as image:
            heights.append(image.height)
    assert heights[1] > 1.5 * heights[0], "a second chart below the first"
    curves([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize("value", [0.0, 1e-300, 1e30])
@pytest.mark.filterwarnings("error", "ignore::DeprecationWarning")
def test_numbers_at_the_ends(value):
    by_noise = [{"noise_level": 1.0, "ema": value, "raw": value}]
    line = {"step": 1, "skipped": 1, "by_noise": by_noise, "nearest": {"median": value}}
    lines = [line | dict.fromkeys(("loss", "grad_norm", "lr", "items_per_second"), value)]
    assert all(chart_svg(chart, lines) for chart in present(CHARTS, lines))
    assert len(present(CHARTS, lines)) == len(CHARTS)


def test_svg():
    before = plt.get_fignums()
    content = chart_svg(BY_NAME["loss"], OLD).decode()
    assert content.lstrip().startswith("<?xml")
    assert re.search("<text[^>]*>training</text>", content)
    assert plt.get_fignums() == before
