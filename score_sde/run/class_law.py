"""The law of classes: in what parts the data have them, and classes of samples drawn by it."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from samplers.noise.seeded import CLASSES, item_seeds


def draw_classes(counts: Sequence[int] | None, classes: int, seed: int, count: int) -> Tensor:
    """The classes (count,) of samples, sample i's drawn with probability counts[y] / sum(counts) from ``seed`` and i
    alone, so that it is the same whatever the batch and the number of samples.

    Without ``counts``, or with those of another number of classes or of no item, every class in turn, with a warning.
    """
    if counts is None or len(counts) != classes or not sum(counts):
        warnings.warn(
            "the run does not say in what parts its data have their classes, as runs of earlier versions do not: "
            f"samples are of all {classes} classes in equal parts; give --labels where that is not meant",
            stacklevel=2,
        )
        return torch.arange(count) % classes
    ends = np.cumsum(counts)
    uniform = np.array([np.random.default_rng(key).random() for key in item_seeds(seed, CLASSES, count)])
    # A class without items has no width, and random() is below 1.
    return torch.from_numpy(np.searchsorted(ends, uniform * ends[-1], side="right"))
