"""Adams steps of variable order on the probability flow, as long as each sample's own error allows."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from samplers.calls import part
from samplers.checks import NonFiniteError, SampleError, check_integer
from samplers.numerics import adams
from samplers.numerics.adams import combine, divided_differences, expanded, newton_integrals, placed
from samplers.padding import real_share
from samplers.step import Result

SHARE = 1 / 3
"""The local error of a step over the tolerance: the errors of a run's steps come together."""

LEAST_LEFT = 0.1
"""What counts as the least that is left to change, relative to the sample."""

VELOCITY = 2
"""The column of the sizes that has v's, behind those of y and of its correction."""

TABLE_ENTRIES = 1025
"""Entries of the table of times, evenly in log(alpha / sigma)."""


@dataclass(frozen=True)
class AdaptiveAdams:
    """Exponential Adams steps of variable order and length, each sample's own (Shampine and Gordon 1975, chapters 5 to
    8), on the probability flow in the angle phi = atan(sigma / alpha), as DEIS with the prediction v has it:

        y = x / sqrt(alpha^2 + sigma^2), dy / dphi = v(y, phi) = (cos(phi) y - D) / sin(phi).

    A step of order k takes the polynomial through the last k values of v, one network call; the next one's value then
    corrects it, as in UniPC. Its length and order are the longest that keep the first term that the polynomial leaves
    out within a third of the ``tolerance``, so that no call is lost on a step that is taken back. Where the last
    correction was larger than that, the next step is foreseen to be as much worse. The error counts relative to the
    root mean square of the sample's y, or to 1 where that is less, and where |v| phi, what is left to change at this
    pace, is less still, relative to that, but to no less than a tenth: errors grow with what they are a part of.

    So a sample's error is about the tolerance at most, relative to data of unit size, where ``tolerance`` is 0.03 or
    less: docs/accuracy.md has it measured. A sample's value does not depend on its batch-mates. One wait for the device
    per call; samples that have arrived leave the batch. ``max_nfe`` bounds the calls of a step of the loop.
    """

    tolerance: float = 0.01
    max_nfe: int = 10_000
    order: ClassVar[float] = 0
    adaptive: ClassVar[bool] = True
    tolerances: ClassVar[tuple[str, ...]] = ("tolerance",)
    steps: ClassVar[int] = 1
    grid: ClassVar[str] = "log_snr"

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < math.inf:
            raise ValueError(f"tolerance = {self.tolerance}: needs a finite number above 0")
        check_integer("max_nfe", self.max_nfe)

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise, carry=None) -> Result:
        """x (B, *event) at time t to time s; t, s 0-d; network calls as needed.

        Raises FloatingPointError where a sample becomes non-finite, ArithmeticError beyond ``max_nfe`` calls.
        """
        return _Run(self, model, x, t, s).end(), carry


class _Run:
    """A batch on its way: the rows that have not arrived, by ``index``, at each its own angle and with each its own
    last values, of as many as all have had calls."""

    def __init__(self, options: AdaptiveAdams, model, x: Tensor, t: Tensor, s: Tensor) -> None:
        self.model, self.options, self.t, self.s = model, options, t, s
        self.allowed, self.count = options.tolerance * SHARE, len(x)
        first, self.last = (math.atan2(at.sigma, at.alpha) for at in (model.sde.level(u) for u in (t, s)))
        self.index = torch.arange(self.count, device="cpu")
        self.share = real_share(model, x)
        # One inverse for all calls: by bisection, it can cost as much as a small network.
        high, low = (-math.log(math.tan(angle)) for angle in (first, self.last))
        self.clock = np.linspace(high, low, TABLE_ENTRIES)
        self.times = model.sde.t_of_log_snr(2 * torch.from_numpy(self.clock)).numpy()
        self.y = x / self._norm(t).item()
        # Values newest first, with their angles, of the predicted states that the network saw.
        self.nodes = np.full((self.count, 1), first)
        self.values = [self._velocity(self.y, t.expand(self.count))]

    def _norm(self, times: Tensor) -> Tensor:
        return torch.hypot(self.model.sde.alpha(times), self.model.sde.sigma(times))

    def _angles(self, times: Tensor) -> np.ndarray:
        return torch.atan2(self.model.sde.sigma(times), self.model.sde.alpha(times)).numpy()

    def _times(self, angles: np.ndarray) -> Tensor:
        """The times of angles (A,), to about six digits of their places; the step goes to the time's own angle."""
        found = torch.from_numpy(np.interp(-np.log(np.tan(angles)), self.clock, self.times))
        return found.clamp(self.s, self.t)

    def _velocity(self, y: Tensor, times: Tensor) -> Tensor:
        """v (A, *event) by one network call of the rows at their times (A,)."""
        alpha, sigma, norm = self.model.sde.alpha(times), self.model.sde.sigma(times), self._norm(times)
        norm, cos, sin = (expanded(c, y) for c in placed(torch.stack([norm, alpha / norm, sigma / norm]), y))
        with part(self.model, self.index, self.count) as rows:
            return (cos * y - rows(norm * y, times)) / sin

    def _sizes(self, parts: list[Tensor]) -> np.ndarray:
        """The root mean squares (A, parts) of tensors (A, *event), over what is real of each; one read-back."""
        found = torch.stack([p.flatten(1).square().mean(1) for p in parts], 1).sqrt().cpu().double()
        if self.share is not None:
            found = found / self.share[self.index].double().sqrt()[:, None]
        return found.numpy()

    def end(self) -> Tensor:
        """All rows at the last time, (B, *event)."""
        arrived = torch.empty_like(self.y)
        before = np.full(self.count, adams.FIRST / adams.GROWTH * math.sqrt(self.allowed))
        start, predicted, order, calls = self.nodes[:, 0], self.y, np.ones(self.count, int), 1
        while True:
            differences = divided_differences(self.nodes, self.values)
            if calls > 1:
                # Once more from where the step began, with the value at its end.
                taken = newton_integrals(self.nodes[:, :-1], start, self.nodes[:, 0])
                self.y = combine(self.y, _first(taken, order + 1), differences)
            found = self._sizes([self.y, self.y - predicted, *differences])
            if not np.isfinite(found).all():
                self._refuse(found)
            self.nodes, self.values = self.nodes[:, : adams.ORDER], self.values[: adams.ORDER]
            differences, start = differences[: adams.ORDER], self.nodes[:, 0]
            size, missed, sizes = found[:, 0], found[:, 1], found[:, 2 : 2 + len(differences)]
            left = np.minimum(sizes[:, 0] * start + LEAST_LEFT, 1)
            unit = np.maximum(size, 1) * left
            worse = np.clip(missed / unit / self.allowed, 1, adams.FEEDBACK)
            rest = start - self.last
            choice = adams.choose(self.nodes, sizes / unit[:, None], rest, before, self.allowed / worse[:, None, None])
            times = self._times(np.maximum(start - choice.step, self.last))
            goal = np.where(choice.lands, self.last, self._angles(times))
            ahead = newton_integrals(self.nodes[:, :-1], start, goal)
            predicted = combine(self.y, _first(ahead, choice.order), differences)
            order, before = choice.order, choice.step
            if choice.lands.any():
                there = torch.from_numpy(choice.lands)
                arrived[self.index[there].to(arrived.device)] = predicted[there.to(arrived.device)]
                going = ~there
                if not going.any():
                    return arrived * self._norm(self.s).item()
                keep, rows = going.nonzero().squeeze(1), going.numpy()
                self.index, self.nodes, start, goal = self.index[keep], self.nodes[rows], start[rows], goal[rows]
                order, before, times = order[rows], before[rows], times[keep]
                keep = keep.to(arrived.device)
                self.y, predicted = self.y[keep], predicted[keep]
                self.values = [value[keep] for value in self.values]
            if calls >= self.options.max_nfe:
                raise SampleError(
                    self.index[:1].tolist(),
                    f"took {calls} calls and is at sigma / alpha = {math.tan(start[0]):.4g}: loosen the tolerance = "
                    f"{self.options.tolerance:g}, or raise max_nfe = {self.options.max_nfe}",
                )
            self.values = [self._velocity(predicted, times), *self.values]
            self.nodes = np.concatenate([goal[:, None], self.nodes], 1)
            calls += 1

    def _refuse(self, found: np.ndarray) -> None:
        row = int((~np.isfinite(found).all(1)).argmax())
        where = f"sigma / alpha = {math.tan(self.nodes[row, 0]):.4g}"
        if np.isfinite(found[row, VELOCITY]):
            # Divided differences of what differs by rounding alone, over steps ever shorter.
            raise SampleError(
                [int(self.index[row])],
                f"is at {where}, where the steps that tolerance = {self.options.tolerance:g} asks for are lost in "
                "rounding: loosen it",
            )
        raise NonFiniteError(
            [int(self.index[row])],
            f"became non-finite at {where}: the model's output is not finite there",
        )


def _first(weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Weights (A, K) with those of each row beyond its count (A,) as 0."""
    return np.where(np.arange(weights.shape[1]) < counts[:, None], weights, 0)
