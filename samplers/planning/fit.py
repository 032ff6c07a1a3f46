"""Regression of one step: weights by which outputs of pilots come closest to what the step should change."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from samplers.host import double
from samplers.numerics.weights import divided_differences, exponential_weights

RIDGES = tuple(10.0**power for power in range(-8, 2))
"""How strongly a fit may hold on to the exponential method it departs from, relative to its features' mean square."""

ONE_RIDGE = (1e-4,)
"""Of fits that only compare grids."""

FOLDS = 4
"""Parts of the pilots, each left out once to find the ridge that predicts it best."""

ROBUST_PART = 0.3
"""Residuals below this part of the median count alike: above, the logarithm's weight, one over the square."""


def fit_step(
    nodes: tuple[float, ...], end: float, outputs: Tensor, change: Tensor, ridges: Sequence[float] = RIDGES
) -> tuple[np.ndarray, Tensor]:
    """Weights w (k,) such that sum_k w_k outputs_k is close to ``change``, and the distance (P,) left to each pilot.

    ``nodes`` are the log(alpha / sigma) of the outputs (k, P, C), newest first, ``end`` that of the step's end; change
    (P, C) is of x / alpha. A ridge regression towards the exponential method of order 2, in the basis of divided
    differences scaled to unit mean square: they are far less alike than the outputs, so that a small ridge does not
    keep the weights from what high orders need. It minimizes the mean logarithm of the distances, by reweighting: the
    few pilots near a watershed between modes would own a mean square. Of ``ridges`` it takes the one whose fits to the
    other pilots leave each fold of them the least: what is too weak for a few pilots in the plane, which eight weights
    fit by chance, biases a fit of many whose residuals are a millionth of the step.
    """
    short = nodes[:2]
    base = np.zeros(len(nodes))
    base[: len(short)] = -np.exp(-end) * np.array(exponential_weights(short, nodes[0], end, -1.0))
    basis = divided_differences(nodes)
    features = torch.einsum("jk,kpc->jpc", torch.from_numpy(basis), outputs)
    scale = features.square().mean((1, 2)).sqrt().clamp(min=1e-300)
    features = features / scale[:, None, None]
    rest = change - torch.einsum("k,kpc->pc", torch.from_numpy(base), outputs)
    moments = Moments(
        torch.einsum("ipc,jpc->pij", features, features),
        torch.einsum("ipc,pc->pi", features, rest),
        rest.square().sum(1),
    )
    strengths = double(ridges)
    if len(ridges) > 1:
        strengths = strengths[moments.validated(strengths).argmin()][None]
    fitted = moments.fit(strengths)
    return base + (fitted[0] / scale).numpy() @ basis, moments.squares(fitted)[0].sqrt()


def mean_log(squares: Tensor, floor: Tensor) -> Tensor:
    """The mean logarithm over the last axis; below ``floor`` they count alike."""
    return (squares + floor + 1e-300).log().mean(-1)


class Moments(NamedTuple):
    """What a least-squares fit asks of P pilots: of features F (k, C) and target y (C,) of each, F F^T (P, k, k), F y
    (P, k) and |y|^2 (P,)."""

    gram: Tensor
    slope: Tensor
    start: Tensor

    def squares(self, weights: Tensor) -> Tensor:
        """Squared distances (R, P) that weights (R, k) leave."""
        crossed = weights @ self.slope.T
        pairs = (weights[:, :, None] * weights[:, None]).flatten(1)
        return (self.start - 2 * crossed + pairs @ self.gram.flatten(1).T).clamp(min=0)

    def fit(self, ridges: Tensor, kept: Tensor | None = None) -> Tensor:
        """Weights (R, k) for each of the ridges (R,), by four reweighted solutions, to the pilots ``kept`` (R, P)."""
        unit = torch.eye(self.gram.shape[-1], dtype=torch.float64, device="cpu")
        squares = self.start.expand(len(ridges), -1)
        for _ in range(4):
            if kept is not None:
                squares = squares.where(kept, torch.nan)
            trust = 1 / (squares + ROBUST_PART * squares.nanmedian(1, keepdim=True).values + 1e-300)
            trust = trust.nan_to_num(0)
            total = (trust @ self.gram.flatten(1)).view(-1, *unit.shape)
            strength = ridges * total.diagonal(dim1=1, dim2=2).mean(1)
            weights = torch.linalg.solve(total + strength[:, None, None] * unit, trust @ self.slope)
            squares = self.squares(weights)
        return weights

    def validated(self, ridges: Tensor) -> Tensor:
        """The mean logarithm of the squared distances that fits to the other folds leave each pilot, (R,)."""
        fold = torch.arange(len(self.start), device="cpu") * FOLDS // len(self.start)
        kept = (fold != torch.arange(FOLDS, device="cpu")[:, None]).repeat_interleave(len(ridges), 0)
        squares = self.squares(self.fit(ridges.repeat(FOLDS), kept)).view(FOLDS, len(ridges), -1)
        left = squares[fold, :, torch.arange(len(fold), device="cpu")].T
        return mean_log(left, ROBUST_PART * left.median(1).values.min())
