"""Toy sets: points in the plane with labels, always the same ones."""

import math

import numpy as np
import torch
from torch import Tensor


def moons(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Two interleaved half circles with noise 0.05; two classes."""
    label = rng.integers(0, 2, n)
    angle = math.pi * rng.random(n)
    x = np.stack([np.cos(angle), np.sin(angle)], 1) * np.where(label, -1, 1)[:, None]
    x += np.where(label[:, None], [1.0, 0.5], [0.0, 0.0])
    return x + 0.05 * rng.standard_normal((n, 2)), label


def ring(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Eight Gaussians of standard deviation 0.1 on a circle of radius 2; eight classes."""
    label = rng.integers(0, 8, n)
    angle = label * math.pi / 4
    return 2 * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.1 * rng.standard_normal((n, 2)), label


def checkerboard(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The black squares of a 4x4 board over [-2, 2]^2; the class is the row."""
    row, column = rng.integers(0, 4, n), rng.integers(0, 2, n)
    corner = np.stack([2 * column + row % 2, row], 1)
    return corner + rng.random((n, 2)) - 2, row


def spiral(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Two arms of a spiral with noise 0.05; two classes."""
    label = rng.integers(0, 2, n)
    radius = 2 * np.sqrt(rng.random(n))
    angle = 1.5 * math.pi * radius / 2 + math.pi * label
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.05 * rng.standard_normal((n, 2)), label


TOYS = {"moons": moons, "ring": ring, "checkerboard": checkerboard, "spiral": spiral}


def labeled_toys(name: str, n: int) -> tuple[Tensor, Tensor]:
    """n points (n, 2) and labels (n,) of a toy set."""
    x, labels = TOYS[name](np.random.default_rng(0), n)
    return torch.from_numpy(x).float(), torch.from_numpy(labels.astype(np.int64))
