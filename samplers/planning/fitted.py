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
from samplers.planning.fit import ONE_RIDGE, fit_step
from samplers.step import Result

MAX_COMBINED = 8
"""Noise predictions that a step combines at most."""


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


def pick(x: Tensor, keep: Tensor) -> Tensor:
    """The coordinates ``keep`` of x (P, *event), as (P, C), where both are."""
    return x.flatten(1)[:, keep]


def gathered(parts: Sequence[Tensor]) -> Tensor:
    """Tensors (P, C) stacked, in float64 on the CPU, in one copy."""
    return torch.stack([*parts]).cpu().double()


class Fitter:
    """A sampler that fits its weights as it goes: each step to where the reference is at its end, from wherever the
    steps before have led. ``reference(log_ratio)`` gives the pilots' x / alpha there, (P, C), of the coordinates
    ``keep``. ``heard`` holds noise predictions by the times up to theirs, for runs from the same x: those on grids that
    begin alike are called once."""

    def __init__(self, reference, keep: Tensor, heard: dict[tuple[float, ...], Tensor] | None = None) -> None:
        self.reference, self.keep, self.heard = reference, keep, heard
        self.passed: tuple[float, ...] = ()
        self.weights: list[tuple[float, ...]] = []

    def noise(self, model, x: Tensor, t: Tensor) -> Tensor:
        """The noise prediction at the run's next time."""
        self.passed = (*self.passed, t.item())
        if self.heard is None:
            return model.noise(x, t)
        if self.passed not in self.heard:
            self.heard[self.passed] = model.noise(x, t)
        return self.heard[self.passed]

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry=None) -> Result:
        """As LinearMultistep, after the fit."""
        start, end = model.sde.level(t), model.sde.level(s)
        nodes, outputs, seen = carry or ((), [], [])
        nodes, outputs = (log_ratio(start), *nodes)[:MAX_COMBINED], [self.noise(model, x, t), *outputs][:MAX_COMBINED]
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
    With one ridge for all, which compares grids as well.
    """
    left = []
    for i, (before, after) in enumerate(pairwise(states)):
        window = slice(max(0, i + 1 - MAX_COMBINED), i + 1)
        nodes, seen = tuple(log_ratios[window][::-1].tolist()), outputs[window].flip(0)
        left.append(fit_step(nodes, float(log_ratios[i + 1]), seen, after - before, ONE_RIDGE)[1])
    return torch.stack(left)
