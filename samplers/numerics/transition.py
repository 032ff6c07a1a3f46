"""Transitions of a process between the levels of two times: q(x_t | x_s), and q(x_s | x_t, x_0)."""

import math
from typing import TypeVar

from torch import Tensor

C = TypeVar("C", float, Tensor)
"""A float of one time, or a tensor of a time per sample."""


def alpha_ratio(to, start):
    """alpha at one level over alpha at another, as the exponential of a difference of logarithms."""
    difference = to.log_alpha - start.log_alpha
    return difference.exp() if isinstance(difference, Tensor) else math.exp(difference)


def forward_variance(at_t, at_s) -> float:
    """Variance of q(x_t | x_s) for s < t, sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2, without its cancellation."""
    return -math.expm1(at_t.log_snr - at_s.log_snr) * at_t.sigma**2


def posterior_variance(at_t, at_s) -> float:
    """Variance of q(x_s | x_t, x_0): forward_variance sigma_s^2 / sigma_t^2 (Ho et al. 2020, eq. 7, for any SDE)."""
    return -math.expm1(at_t.log_snr - at_s.log_snr) * at_s.sigma**2


def root(variance: C) -> C:
    """The standard deviation; NaN, as of a tensor, of a variance below 0, so that the loop names step and samples."""
    if isinstance(variance, Tensor):
        return variance.sqrt()
    return math.sqrt(variance) if variance >= 0 else math.nan
