"""The bootstrap: intervals by drawing again from the items, without repeating one."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import t
from torch import Tensor

from score_sde.metrics.estimate import Estimate
from score_sde.metrics.proportion import share
from score_sde.metrics.streams import SUBSAMPLES

MAX_PART_ITEMS = 2000
"""Items of a part at most, where more of them would only cost time."""


def subsampled(
    function: Callable[[Tensor, Tensor], float],
    x: Tensor,
    y: Tensor,
    *,
    subsamples: int = 100,
    seed: int = 0,
    biased: bool = False,
    limits: tuple[float, float] = (-torch.inf, torch.inf),
) -> Estimate:
    """function(x, y) of x (n, d) and y (m, d), and the interval of its mean over such sets, or where it is ``biased``
    of its limit for many items, within ``limits``.

    ``subsamples`` times a half of either set is drawn without replacement, and the function taken of the halves. About
    the value of all items, those of halves have the variance that it has about the truth, and the same bias of order
    1/n again (Politis, Romano and Wolf 1999, ch. 2). No item is drawn twice, as twins at distance 0 would spoil
    neighbors and U-statistics. A share q other than 1/2 has (1 - q) / q times the variance and bias; unbiased
    functions take at most 2,000 items. The interval is Student's, moved by (q^2 + 1) / 6 standard deviations for each
    unit of skewness of the halves' values, q its quantile, since distances vary the more the larger they are: for the
    square of a normal mean this is exact. Shares of 0 or 1 in all halves have Wilson's interval.
    """
    if subsamples < 2:
        raise ValueError(f"subsamples = {subsamples}: needs at least 2 for an interval")
    if min(len(x), len(y)) < 4:
        raise ValueError(f"{len(x)} and {len(y)} items: halves of them need at least 4 of each")
    value = function(x, y)
    largest = max(len(x), len(y))
    kept = 0.5 if biased else min(0.5, MAX_PART_ITEMS / largest)
    sizes = [max(2, round(kept * len(z))) for z in (x, y)]
    drawn = sum(size / len(z) for size, z in zip(sizes, (x, y), strict=True)) / 2
    ratio = drawn / (1 - drawn)
    # Of a key of their own, or sets that were drawn by the same seed would be halved along their values.
    generator = np.random.default_rng((seed, SUBSAMPLES))
    found = []
    for _ in range(subsamples):
        parts = (generator.permutation(len(z))[:size] for z, size in zip((x, y), sizes, strict=True))
        found.append(function(*(z[torch.from_numpy(part)] for z, part in zip((x, y), parts, strict=True))))
    values = torch.tensor(found, dtype=torch.float64)
    corrected = value - ratio * (values.mean().item() - value) if biased else value
    spread = values.std().item()
    if not spread and limits == (0.0, 1.0):
        count = min(len(x), len(y))
        return share(round(value * count), count)
    skewness = (((values - values.mean()) / spread) ** 3).mean().item() if spread else 0.0
    # Few halves know their spread badly.
    quantile = t.ppf(0.975, subsamples - 1)
    shift = skewness * (quantile**2 + 1) / 6
    # Of shares near 0 or 1 the skewness may be so large that the value itself would be left out.
    moves = min(shift - quantile, 0), max(shift + quantile, 0)
    ends = (float(corrected + move * spread * ratio**0.5) for move in moves)
    low, high = (min(max(end, limits[0]), limits[1]) for end in ends)
    return Estimate(value, corrected, low, high)
