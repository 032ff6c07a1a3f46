"""Scores of pictures drawn from captions: balanced accuracy, what chance has of it, and copies."""

from dataclasses import dataclass

import numpy as np

LEAST_ITEMS = 20
"""Held-out items that a category needs to count."""
COPY_QUANTILE = 0.01
"""The share of held-out items that counts as copies of training items, by definition."""


def common(labels: np.ndarray, least: int = LEAST_ITEMS) -> np.ndarray:
    """The categories of which there are at least so many among labels (n,)."""
    names, counts = np.unique(labels, return_counts=True)
    return names[counts >= least]


def evenly(labels: np.ndarray, categories: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Positions of at most ``count`` items of the categories, in random order of the items and in turn of the
    categories, so that each has as many as it can: of most use to a balanced accuracy."""
    order = np.random.default_rng(seed).permutation(len(labels))
    turns = [order[labels[order] == category] for category in categories]
    keys = [(turn, number, item) for number, items in enumerate(turns) for turn, item in enumerate(items)]
    return np.array([item for _, _, item in sorted(keys)[:count]], dtype=int)


def balanced_accuracy(found: np.ndarray, labels: np.ndarray, categories: np.ndarray) -> tuple[float, float]:
    """The mean over the categories of the share of their items (n,) that are found to be of them, and its standard
    error, sqrt(sum_c p_c (1 - p_c) / n_c) over their number, as of items that are drawn independently. Categories
    without an item are left out."""
    own = [found[labels == category] == category for category in categories if (labels == category).any()]
    if not own:
        raise ValueError("no item is of a category that counts")
    shares = np.array([right.mean() for right in own])
    counts = np.array([len(right) for right in own])
    return float(shares.mean()), float(np.sqrt((shares * (1 - shares) / counts).sum()) / len(own))


def by_chance(found: np.ndarray, labels: np.ndarray, categories: np.ndarray) -> float:
    """The balanced accuracy that the same pictures have on average over all orders of the captions: what the model
    would have if it ignored them. As each category has the same mix of pictures, it is the share of those found in a
    category, averaged over the categories that have an item."""
    present = [category for category in categories if (labels == category).any()]
    return float(np.mean([(found == category).mean() for category in present]))


@dataclass(frozen=True)
class Neighbors:
    """Of each picture the ``index`` (n,) of the nearest of others, and the ``distance`` (n,) to it."""

    index: np.ndarray
    distance: np.ndarray


def neighbors(x: np.ndarray, y: np.ndarray) -> Neighbors:
    """The nearest of y (m, d) to each x (n, d), by the root mean square of differences."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    center = y.mean(0)
    x, y = x - center, y - center
    squares = (y**2).sum(1)
    index = np.concatenate([(squares - 2 * part @ y.T).argmin(1) for part in np.array_split(x, -(-len(x) // 256))])
    return Neighbors(index, np.sqrt(((x - y[index]) ** 2).mean(1)))


def copy_threshold(held_out: Neighbors, quantile: float = COPY_QUANTILE) -> float:
    """The distance within which that share of the held-out items has a training item: a picture that is as near to one
    is called a copy."""
    return float(np.quantile(held_out.distance, quantile))


def root_mean_square(x: np.ndarray, y: np.ndarray) -> float:
    """Of the differences of pictures x and y (n, ...)."""
    return float(np.sqrt(np.mean((x.astype(np.float64) - y) ** 2)))
