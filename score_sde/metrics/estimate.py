"""Estimates: values with their 95 % intervals."""

import math
from dataclasses import dataclass

NORMAL_QUANTILE = 1.959963984540054
"""Quantile of the normal law for 95 %, both sides."""


@dataclass(frozen=True)
class Estimate:
    """``value``, that of all items; ``corrected``, less its bias of order 1/n where it has one; ``low`` and ``high``,
    the 95 % interval around that; ``p_value``, where it is a test."""

    value: float
    corrected: float
    low: float
    high: float
    p_value: float | None = None

    def compared(self, other: "Estimate") -> int:
        """1 where it is larger than an independent estimate, -1 where it is smaller, 0 where the difference may be none
        (its interval from both, Zou and Donner 2008)."""
        # Less its bias a distance may be below 0, where its interval ends: from there it would seem too certain.
        own, its = (min(max(part.corrected, part.low), part.high) for part in (self, other))
        low = own - its - math.hypot(own - self.low, other.high - its)
        high = own - its + math.hypot(self.high - own, its - other.low)
        return (low > 0) - (high < 0)
