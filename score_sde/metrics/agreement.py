"""Agreement: how well masks say the same, entry by entry."""

from torch import Tensor


def f1_scores(found: Tensor, asked: Tensor) -> Tensor:
    """2 |A and B| / (|A| + |B|) of the entries above 0 of masks (n, *shape), (n,) in float64: the harmonic mean of
    precision and recall; 1 where both are empty (van Rijsbergen 1979)."""
    a, b = (mask.flatten(1) > 0 for mask in (found, asked))
    both, total = (a & b).sum(1).double(), (a.sum(1) + b.sum(1)).double()
    return (2 * both / total.clamp(min=1)).where(total > 0, 1.0)
