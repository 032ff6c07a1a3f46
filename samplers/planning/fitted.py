"""Linear multistep methods whose weights were fitted to a model's own trajectories."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from samplers.host import double
from samplers.numerics.exponential import log_ratio
from samplers.numerics.weights import divided_differences, exponential_weights
from samplers.step import Result

MAX_COMBINED = 8
"""Noise predictions that a step combines at most."""

RIDGE_STRENGTH = 1e-4
"""How strongly a fit holds on to the exponential method it departs from, relative to its features' mean square."""

ROBUST_PART = 0.3
"""Residuals below this part of the median count alike: above, the logarithm's weight, one over the square."""


@dataclass(frozen=True)
class LinearMultistep:
    """x_s / alpha_s = x / alpha_t + sum_k w_ik n_(i-k) at step i from times[i] to times[i + 1], n the noise
    predictions.

    One row of ``weights`` per step, newest prediction first (the non-stationary solvers of Shaul et al. 2024, section
    3, without weights on earlier states). Made by ``plan``, for one model and one grid. One network call per step.
    Raises ValueError away from its times.
    """

    times: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    order: ClassVar[float] = 0

    def __post_init__(self) -> None:
        lengths = [len(row) for row in self.weights]
        numbers = [*self.times, *(weight for row in self.weights for weight in row)]
        if lengths != [min(i + 1, MAX_COMBINED) for i in range(len(self.times) - 1)] or not lengths:
            raise ValueError(f"weights: need a row per step of {len(self.times)} times")
        if not all(isinstance(number, float) and math.isfinite(number) for number in numbers):
            raise ValueError("times and weights must be finite floats")

    @property
    def steps(self) -> int:
        """Steps of its grid."""
        return len(self.weights)

    @property
    def grid(self) -> Tensor:
        """Its times."""
        return double(self.times)

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d and neighbors in ``times``; one network call."""
        i, outputs = carry or (0, [])
        if i >= self.steps or (t.item(), s.item()) != self.times[i : i + 2]:
            raise ValueError(
                f"step {i + 1} from t = {t:.6g} to {s:.6g} is not a step of this sampler: its weights were fitted to "
                "its own times; run it from the first to the last"
            )
        outputs = [model.noise(x, t), *outputs][:MAX_COMBINED]
        return _advance(x, model.sde, t, s, self.weights[i], outputs), (i + 1, outputs)


def _advance(x: Tensor, sde, t: Tensor, s: Tensor, weights: Sequence[float], outputs: list[Tensor]) -> Tensor:
    start, end = sde.level(t), sde.level(s)
    x = (end.alpha / start.alpha) * x
    for weight, output in zip(weights, outputs, strict=True):
        x = x + (end.alpha * weight) * output
    return x


def fit_step(nodes: tuple[float, ...], end: float, outputs: Tensor, change: Tensor) -> tuple[np.ndarray, Tensor]:
    """Weights w (k,) such that sum_k w_k outputs_k is close to ``change``, and the distance (P,) left to each pilot.

    ``nodes`` are the log(alpha / sigma) of the outputs (k, P, C), newest first, ``end`` that of the step's end; change
    (P, C) is of x / alpha. A ridge regression towards the exponential method of order 2, in the basis of divided
    differences scaled to unit mean square: they are far less alike than the outputs, so that a small ridge does not
    keep the weights from what high orders need. It minimizes the mean logarithm of the distances, by reweighting: the
    few pilots near a watershed between modes would own a mean square.
    """
    short = nodes[:2]
    base = np.zeros(len(nodes))
    base[: len(short)] = -np.exp(-end) * np.array(exponential_weights(short, nodes[0], end, -1.0))
    basis = divided_differences(nodes)
    features = torch.einsum("jk,kpc->jpc", torch.from_numpy(basis), outputs)
    scale = features.square().mean((1, 2)).sqrt().clamp(min=1e-300)
    features = features / scale[:, None, None]
    rest = change - torch.einsum("k,kpc->pc", torch.from_numpy(base), outputs)
    gram = torch.einsum("ipc,jpc->pij", features, features)
    slope = torch.einsum("ipc,pc->pi", features, rest)
    squares = start = rest.square().sum(1)
    for _ in range(4):
        trust = 1 / (squares + ROBUST_PART * squares.median() + 1e-300)
        total = torch.einsum("p,pij->ij", trust, gram)
        total += RIDGE_STRENGTH * total.diagonal().mean() * torch.eye(len(total), dtype=total.dtype, device="cpu")
        fitted = torch.linalg.solve(total, trust @ slope)
        squares = (start - 2 * slope @ fitted + torch.einsum("i,pij,j->p", fitted, gram, fitted)).clamp(min=0)
    return base + (fitted / scale).numpy() @ basis, squares.sqrt()


def pick(x: Tensor, keep: Tensor) -> Tensor:
    """The coordinates ``keep`` of x (P, *event), as (P, C), where both are."""
    return x.flatten(1)[:, keep]


def gathered(parts: Sequence[Tensor]) -> Tensor:
    """Tensors (P, C) stacked, in float64 on the CPU, in one copy."""
    return torch.stack([*parts]).cpu().double()


class Fitter:
    """A sampler that fits its weights as it goes: each step to where the reference is at its end, from wherever the
    steps before have led. ``reference(log_ratio)`` gives the pilots' x / alpha there, (P, C), of the coordinates
    ``keep``."""

    def __init__(self, reference, keep: Tensor) -> None:
        self.reference, self.keep = reference, keep
        self.weights: list[tuple[float, ...]] = []

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry=None) -> Result:
        """As LinearMultistep, after the fit."""
        start, end = model.sde.level(t), model.sde.level(s)
        nodes, outputs, seen = carry or ((), [], [])
        nodes, outputs = (log_ratio(start), *nodes)[:MAX_COMBINED], [model.noise(x, t), *outputs][:MAX_COMBINED]
        state, output = gathered([pick(x, self.keep), pick(outputs[0], self.keep)])
        seen = [output, *seen][:MAX_COMBINED]
        weights, _ = fit_step(
            nodes, log_ratio(end), torch.stack(seen), self.reference(log_ratio(end)) - state / start.alpha
        )
        self.weights.append(tuple(weights.tolist()))
        return _advance(x, model.sde, t, s, self.weights[-1], outputs), (nodes, outputs, seen)

    def fitted(self, times: Tensor) -> LinearMultistep:
        """The sampler that was found."""
        return LinearMultistep(tuple(times.tolist()), tuple(self.weights))


def predicted_errors(log_ratios: np.ndarray, states: Tensor, outputs: Tensor) -> Tensor:
    """What each step of a grid would leave to each pilot (steps, P) if it began on the reference: a fit without calls.

    states (steps + 1, P, C), the reference's x / alpha, and outputs, its noise predictions, at the grid's log_ratios.
    """
    left = []
    for i, (before, after) in enumerate(pairwise(states)):
        window = slice(max(0, i + 1 - MAX_COMBINED), i + 1)
        nodes, seen = tuple(log_ratios[window][::-1].tolist()), outputs[window].flip(0)
        left.append(fit_step(nodes, float(log_ratios[i + 1]), seen, after - before)[1])
    return torch.stack(left)
