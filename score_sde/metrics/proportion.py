"""Proportions: shares of items with their intervals."""

import math

from score_sde.metrics.estimate import NORMAL_QUANTILE, Estimate


def share(successes: int, count: int) -> Estimate:
    """successes / count with Wilson's 95 % interval (Wilson 1927), which holds for shares of 0 and 1 too."""
    p, z2 = successes / count, NORMAL_QUANTILE**2
    center = (p + z2 / (2 * count)) / (1 + z2 / count)
    width = NORMAL_QUANTILE * math.sqrt(p * (1 - p) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return Estimate(p, p, center - width if successes else 0.0, center + width if successes < count else 1.0)


def mean_share(first: Estimate, second: Estimate, p_value: float | None = None) -> Estimate:
    """The mean of two independent shares, its interval from theirs (Zou and Donner 2008)."""
    value = (first.value + second.value) / 2
    below, above = (
        math.hypot(*(getattr(part, end) - part.value for part in (first, second))) / 2 for end in ("low", "high")
    )
    return Estimate(value, value, value - below, value + above, p_value)
