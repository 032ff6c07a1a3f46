"""Adams methods of variable order whose steps are each row's own."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

ORDER = 4
"""Values that a predictor looks back on at most."""

LONGEST = 0.5
"""A step at most, in radians of the angle: beyond it a few values say nothing of what lies ahead."""

GROWTH = 2.0
"""How many times as long as the one before a step is at most."""

FIRST = 1.4
"""The first step over the root of the tolerance: its local error is half its square times the second derivative, which
is about one for standardized data."""

FEEDBACK = 4.0
"""How much larger than foreseen an error counts at most, in the foresight of the next."""

FRACTIONS = np.logspace(-3, 0, 46)
"""Steps that are weighed, as fractions of the longest one."""

_points, _masses = np.polynomial.legendre.leggauss(6)
POINTS, MASSES = (_points + 1) / 2, _masses / 2


class Choice(NamedTuple):
    """The next ``step`` of each row, (A,), how many values its predictor takes, ``order`` (A,), and whether it
    ``lands`` at the end, (A,)."""

    step: np.ndarray
    order: np.ndarray
    lands: np.ndarray


def newton_integrals(nodes: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The integrals from ``start`` to ``end`` of Newton's basis 1, u - u_0, (u - u_0)(u - u_1), ..., one more than the
    nodes (..., K): (..., K + 1). Exact up to degree 11."""
    u = start[..., None] + (end - start)[..., None] * POINTS
    product = (end - start)[..., None] * MASSES
    found = [product.sum(-1)]
    for j in range(nodes.shape[-1]):
        product = product * (u - nodes[..., j, None])
        found.append(product.sum(-1))
    return np.stack(found, -1)


def divided_differences(nodes: np.ndarray, values: list[Tensor]) -> list[Tensor]:
    """[f_0], [f_0, f_1], ... of ``values`` (A, *event) at each row's ``nodes`` (A, K)."""
    gaps = [1 / (nodes[:, : nodes.shape[1] - order] - nodes[:, order:]) for order in range(1, len(values))]
    # One copy to the device for all, each of the shape (A, 1, ...).
    flat = torch.from_numpy(np.concatenate([np.ones((len(nodes), 1)), *gaps], 1))
    columns = [expanded(column, values[0]) for column in placed(flat, values[0]).unbind(1)][1:]
    rows, found = values, [values[0]]
    for order in range(1, len(values)):
        own, columns = columns[: len(values) - order], columns[len(values) - order :]
        rows = [(a - b) * c for a, b, c in zip(rows[:-1], rows[1:], own, strict=True)]
        found.append(rows[0])
    return found


def placed(numbers: Tensor, like: Tensor) -> Tensor:
    """Numbers of the CPU in the dtype and on the device of ``like``."""
    # Rounded here, as a device may have no float64.
    return numbers.to(like.dtype).to(like.device, non_blocking=like.device.type == "cuda")


def expanded(column: Tensor, like: Tensor) -> Tensor:
    """(A,) as (A, 1, ...), to go with ``like``."""
    return column.view(-1, *[1] * (like.ndim - 1))


def combine(base: Tensor, weights: np.ndarray, parts: list[Tensor]) -> Tensor:
    """base + sum_j weights_j parts_j, with weights (A, K) of each row's own."""
    for column, part in zip(placed(torch.from_numpy(weights), base).unbind(1), parts, strict=True):
        base = base + expanded(column, base) * part
    return base


def choose(
    nodes: np.ndarray, sizes: np.ndarray, rest: np.ndarray, before: np.ndarray, tolerance: float | np.ndarray
) -> Choice:
    """The longest step and the order that keep the local error that is foreseen within the tolerance.

    ``nodes`` (A, K) are the last places, newest first, in a coordinate that falls; ``sizes`` (A, K) those of the
    divided differences there, in units of the error; ``rest`` (A,) what is left of the way, ``before`` (A,) the last
    steps, and ``tolerance`` one for all, or (A, 1, 1).
    The error of a predictor through j values is the first term of Newton's series that it leaves out, |[f_0 ... f_j]|
    times the integral of (u - u_0) ... (u - u_(j-1)); the step then takes that term too (local extrapolation; Shampine
    and Gordon 1975, chapter 5).
    """
    count, known = nodes.shape
    longest = np.minimum(np.minimum(rest, LONGEST), GROWTH * before)
    if known == 1:
        step, order = longest, np.ones(count, int)
    else:
        tried = longest[:, None] * FRACTIONS
        start = np.broadcast_to(nodes[:, :1], tried.shape)
        among = np.broadcast_to(nodes[:, None, :-1], (*tried.shape, known - 1))
        terms = np.abs(newton_integrals(among, start, start - tried)[..., 1:]) * sizes[:, None, 1:]
        # As far as it holds without a gap, (A, orders), and the least step where it never does.
        held = np.cumprod(terms <= tolerance, 1, dtype=int).sum(1)
        best = held.argmax(1)
        reach = np.maximum(held.max(1) - 1, 0)
        step, order = tried[np.arange(count), reach], np.minimum(best + 2, known)
    parts = np.maximum(np.ceil(rest / step - 1e-9), 1)
    # Two even steps in the place of a long one and a short one.
    step = np.where(parts <= 2, rest / parts, step)
    return Choice(step, order, parts <= 1)
