"""Power-function profiles: how an average weighs the past, how long it is, and which of them add up to which.

p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1) for 0 <= tau <= t is the density of the weight that an average at time t
gives to the parameters of time tau. Its length is its standard deviation relative to t (Karras et al. 2024,
arXiv:2312.02696, eq. 123).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MAX_RELATIVE_STD = 12**-0.5
"""Relative standard deviation of the uniform profile, gamma = 0."""


class Profile(NamedTuple):
    """The profile of an average at the time ``t`` > 0, with the exponent ``gamma`` >= 0."""

    t: float
    gamma: float


def exponent(relative_std: float) -> float:
    """The gamma >= 0 whose profile has this standard deviation, in units of t: sqrt((gamma + 1) / (gamma + 3)) /
    (gamma + 2) (eq. 123), solved as a cubic. Raises ValueError outside (0, 1 / sqrt(12)]."""
    if not (isinstance(relative_std, int | float) and 0 < relative_std <= MAX_RELATIVE_STD):
        raise ValueError(
            f"relative_std = {relative_std!r}: needs a number above 0 and at most {MAX_RELATIVE_STD:.4f}, which is the "
            "uniform average; 0.05 and 0.1 are usual"
        )
    # With s = relative_std^-2 and y = gamma + 7 / 3 the cubic is y^3 - p y + q = 0, with three real roots.
    s = relative_std**-2
    p, q = s + 1 / 3, 4 / 3 * s + 2 / 27
    amplitude = 2 * math.sqrt(p / 3)
    largest = amplitude * math.cos(math.acos(-3 * q / (p * amplitude)) / 3)
    return max(0.0, largest - 7 / 3)


def inner_products(rows: Sequence[Profile], columns: Sequence[Profile]) -> np.ndarray:
    """The integrals of the products of profiles (len(rows), len(columns)), float64: for (t, g) and (u, h), with m the
    smaller of t and u, (g + 1) (h + 1) / (g + h + 1) (m / t)^g (m / u)^h / max(t, u) (appendix C.3)."""
    (t, g), (u, h) = (np.array(profiles, dtype=np.float64).T for profiles in (rows, columns))
    t, g = t[:, None], g[:, None]
    shorter = np.minimum(t, u)
    return (g + 1) * (h + 1) / (g + h + 1) * (shorter / t) ** g * (shorter / u) ** h / np.maximum(t, u)


def combination(held: Sequence[Profile], wanted: Profile) -> tuple[np.ndarray, float]:
    """The weights (n,) of the ``held`` profiles whose sum comes nearest to the ``wanted`` one, and its relative error.

    They minimize the integral of (sum_i x_i p_i - p)^2 (algorithm 3), here among the weights that add up to 1: the
    paper leaves the sum free, and parameters that never changed would be scaled by it. The error is the root of that
    integral over the norm of p, down to about 1e-8: for white noise in the parameters, the deviation from the wanted
    average relative to what noise that one still has.
    """
    gram = inner_products(held, held)
    norms = np.sqrt(np.diag(gram))
    gram = gram / norms / norms[:, None]
    target = inner_products(held, [wanted])[:, 0] / norms
    free, unit = np.linalg.lstsq(gram, np.stack([target, 1 / norms], axis=1))[0].T
    scaled = free + unit * (1 - (free / norms).sum()) / (unit / norms).sum()
    norm = inner_products([wanted], [wanted])[0, 0]
    square = scaled @ gram @ scaled - 2 * scaled @ target + norm
    return scaled / norms, math.sqrt(max(0.0, square) / norm)
