"""The palette of classes: one color for a class in every picture, whatever other classes are in it."""

import numpy as np
from torch import Tensor

FIRST = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")
"""Colors of the classes 0 to 9, those of matplotlib's cycle."""
NO_CLASS = "#b8b8b8"
GOLDEN = (5**0.5 - 1) / 2


def class_color(label: int) -> tuple[float, float, float]:
    """Red, green and blue from 0 to 1. Behind the first ten the hue goes on by the golden ratio, so that each differs
    from all before it, and brightness and saturation take turns."""
    from matplotlib.colors import hsv_to_rgb, to_rgb

    if label < 0:
        return to_rgb(NO_CLASS)
    if label < len(FIRST):
        return to_rgb(FIRST[label])
    step = label - len(FIRST)
    hue, saturation, value = (step * GOLDEN) % 1, (0.9, 0.5)[step % 2], (0.6, 0.85, 0.95)[step % 3]
    red, green, blue = hsv_to_rgb((hue, saturation, value)).tolist()
    return red, green, blue


def class_colors(labels: Tensor) -> np.ndarray:
    """Those of labels (n,), (n, 3); of no class, below 0, a gray."""
    known = {label: class_color(label) for label in labels.unique().tolist()}
    return np.array([known[label] for label in labels.tolist()]).reshape(-1, 3)
