"""Charts of a training run's metrics."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes

from score_sde.plots.chart import GREY, logarithmic
from score_sde.plots.pictures import figure_bytes
from sde.files import write_whole

BLUE, ORANGE, RED = "#3b82d0", "#e08020", "#d64545"
"""Colours that are seen on white as well as on black."""
MAX_POINTS = 800
"""Points of a curve at most: more are thinned out."""


class Curves(NamedTuple):
    """A chart of the lines that have ``key``, over the steps unless ``plot`` says otherwise, and what it means."""

    key: str
    title: str
    plot: Callable[[Axes, Sequence[dict]], None]
    meaning: str

    def draw(self, axes: Axes, rows: Sequence[dict]) -> None:
        """The curves of the lines of a log, with a legend where they have names."""
        axes.set_xlabel("optimizer step")
        axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
        self.plot(axes, rows)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small", framealpha=0)


def series(lines: Sequence[dict], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a key, "outer/inner" for that of a dict within, where there is a number."""
    outer, _, inner = key.partition("/")
    found = [(line["step"], (line.get(outer) or {}).get(inner) if inner else line.get(outer)) for line in lines]
    points = np.array([(step, value) for step, value in found if value is not None], float).reshape(-1, 2)
    return points[:, 0], points[:, 1]


def smoothed(values: np.ndarray) -> np.ndarray:
    """Means over the fiftieth of the values about each."""
    window = np.ones(2 * (len(values) // 100) + 1)
    return np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same")


def draw_losses(axes: Axes, lines: Sequence[dict]) -> None:
    _noisy(axes, *series(lines, "loss"), GREY, "training")
    for key, color, style, label in (
        ("held_out_loss_raw", ORANGE, "o--", "held-out, raw weights"),
        ("held_out_loss", BLUE, "o-", "held-out, averaged weights"),
    ):
        steps, values = series(lines, key)
        if len(steps):
            _curve(axes, steps, values, style, color=color, linewidth=1.2, label=label)
    logarithmic(axes)


def draw_gradient_norms(axes: Axes, lines: Sequence[dict]) -> None:
    _noisy(axes, *series(lines, "grad_norm"), BLUE, "mean between two records")
    steps, skipped = series(lines, "skipped")
    more = np.diff(skipped, prepend=0) > 0
    if more.any():
        label = f"steps skipped, {skipped[-1]:.0f} in all"
        at_bottom = np.full(more.sum(), 0.04)
        axes.plot(steps[more], at_bottom, "x", color=RED, transform=axes.get_xaxis_transform(), label=label)
    logarithmic(axes)


def draw_noise_levels(axes: Axes, lines: Sequence[dict]) -> None:
    for line, shade, last in _chosen(lines, "by_noise"):
        for weights, style in (("ema", "o-"), ("raw", "o--"))[: 2 if last else 1]:
            points = np.array([(level["noise_level"], level.get(weights)) for level in line["by_noise"]], float)
            label = f"step {line['step']:,}, {'averaged' if weights == 'ema' else 'raw'}"
            color = ORANGE if weights == "raw" else BLUE
            axes.plot(*points.T, style, color=color, alpha=shade, markersize=3, label=label)
    _over_noise(axes)


def draw_accuracy(axes: Axes, lines: Sequence[dict]) -> None:
    for line, shade, _ in _chosen(lines, "accuracy_by_noise"):
        points = np.array([(level["noise_level"], level["accuracy"]) for level in line["accuracy_by_noise"]], float)
        axes.plot(*points.T, "o-", color=BLUE, alpha=shade, markersize=3, label=f"step {line['step']:,}")
    axes.axhline(line["chance"], color=GREY, linestyle=":", label="the most frequent class")
    _over_noise(axes)
    axes.set_ylim(top=1.02)


def _chosen(lines: Sequence[dict], key: str) -> list[tuple[dict, float, bool]]:
    """The first, the middle and the last line that has the key, each with its shade and whether it is the last."""
    measured = [line for line in lines if line.get(key)]
    chosen = sorted({0, len(measured) // 2, len(measured) - 1})
    shades = (0.35, 0.65, 1.0)[-len(chosen) :]
    return [(measured[i], shade, i == chosen[-1]) for i, shade in zip(chosen, shades, strict=True)]


def _over_noise(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_xlabel("noise level, sigma / alpha")
    axes.set_ylim(bottom=0)


def draw_distances(axes: Axes, lines: Sequence[dict]) -> None:
    for key, color, style, label in (
        ("nearest/median", BLUE, "o-", "samples, median"),
        ("nearest/smallest", BLUE, "v:", "samples, smallest"),
        ("nearest/held_out_median", GREY, "o-", "held-out items, median"),
        ("nearest/held_out_smallest", GREY, "v:", "held-out items, smallest"),
    ):
        _curve(axes, *series(lines, key), style, color=color, linewidth=1.2, label=label)
    axes.set_ylim(bottom=0)


def draw_reconstructions(axes: Axes, lines: Sequence[dict]) -> None:
    for key, color, label in (("psnr/training", GREY, "training items"), ("psnr/held_out", BLUE, "held-out items")):
        _curve(axes, *series(lines, key), "o-", color=color, linewidth=1.2, label=label)


def draw_one(key: str) -> Callable[[Axes, Sequence[dict]], None]:
    """A chart of the values of one key, from zero."""

    def draw(axes: Axes, lines: Sequence[dict]) -> None:
        _curve(axes, *series(lines, key), color=BLUE, linewidth=1.2)
        axes.set_ylim(bottom=0)

    return draw


LOSS = Curves(
    "loss",
    "Loss",
    draw_losses,
    "Held-out losses are taken at the same items, times and noise every time. One that rises while the training loss "
    "falls says that the model has begun to memorize.",
)
GRADIENT_NORM = Curves(
    "grad_norm",
    "Gradient norm",
    draw_gradient_norms,
    "Before clipping. A cross is where steps were left out because loss or gradient was not finite.",
)
ACCURACY = Curves(
    "accuracy_by_noise",
    "Held-out accuracy by noise level",
    draw_accuracy,
    "Of a noise-conditional classifier. It falls to the share of the most frequent class where noise has hidden the "
    "data.",
)
PSNR = Curves(
    "psnr",
    "Reconstructions, PSNR in dB",
    draw_reconstructions,
    "Of an autoencoder, by the pooled squared error. Where held-out items fall while training items rise, it has begun "
    "to memorize.",
)
CHARTS = (
    LOSS,
    Curves(
        "by_noise",
        "Held-out loss by noise level",
        draw_noise_levels,
        "1 is a denoiser that knows no more of the data than their mean square, at every noise level; 0 would be the "
        "data themselves, which no model can reach.",
    ),
    GRADIENT_NORM,
    Curves(
        "nearest",
        "Distance to the nearest training item",
        draw_distances,
        "Root mean square over the dimensions, in model units. Samples that lie much nearer than held-out items are "
        "copies.",
    ),
    Curves("lr", "Learning rate", draw_one("lr"), "Of the last step before each record."),
    Curves(
        "items_per_second",
        "Items per second",
        draw_one("items_per_second"),
        "Mean since the command began; pictures and checkpoints count as time.",
    ),
)


def present(charts: Sequence[Curves], lines: Sequence[dict]) -> list[Curves]:
    """The charts for which there are numbers."""
    return [chart for chart in charts if any(line.get(chart.key) not in (None, [], {}) for line in lines)]


def curves(lines: Sequence[dict], path: Path) -> None:
    """A picture of losses, gradient norms, accuracies and reconstructions, those of them that were recorded."""
    charts = present((LOSS, GRADIENT_NORM, ACCURACY, PSNR), lines)
    if charts:
        write_whole(path, figure_bytes(_figure(charts, lines, (7, 3.5 * len(charts)))))


def _figure(charts: Sequence[Curves], lines: Sequence[dict], size: tuple[float, float]):
    figure, grid = plt.subplots(len(charts), 1, figsize=size, squeeze=False, layout="constrained")
    for axes, chart in zip(grid[:, 0], charts, strict=True):
        chart.draw(axes, lines)
        if len(charts) > 1:
            axes.set_ylabel(chart.title[:1].lower() + chart.title[1:])
    return figure


def _noisy(axes: Axes, steps: np.ndarray, values: np.ndarray, color: str, label: str) -> None:
    _curve(axes, steps, values, color=color, alpha=0.35, linewidth=0.8)
    _curve(axes, steps, smoothed(values), color=color, linewidth=1.5, label=label)


def _curve(axes: Axes, steps: np.ndarray, values: np.ndarray, style: str = "", **options) -> None:
    """A curve, or where there is a single value, a point."""
    axes.plot(*_thinned(steps, values), style or ("o" if len(steps) == 1 else "-"), markersize=3, **options)


def _thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    index = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), MAX_POINTS)).round().astype(int))
    return steps[index], values[index]
