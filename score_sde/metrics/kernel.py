"""Kernel distances: unbiased estimates of the squared maximum mean discrepancy."""

from collections.abc import Callable

from torch import Tensor

from score_sde.metrics.distances import blocks, distances
from sde.device import wide


def polynomial(x: Tensor, y: Tensor) -> Tensor:
    """(x . y / d + 1)^3, the kernel of the KID (Binkowski et al. 2018, section 4): moments up to the third."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def energy(x: Tensor, y: Tensor) -> Tensor:
    """-|x - y|, which makes the MMD the energy distance (Szekely and Rizzo 2013; Sejdinovic et al. 2013): all of the
    law, no bandwidth."""
    return -distances(x, y)


KERNELS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"polynomial": polynomial, "energy": energy}
"""Kernels k(x_i, y_j) (n, m) of x (n, d) and y (m, d)."""


def kernel_distance(x: Tensor, y: Tensor, kernel: str = "polynomial") -> float:
    """The unbiased estimate of MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y) (Gretton et al. 2012, eq. 3) of x (n, d)
    and y (m, d), by a key of KERNELS. All pairs count once, so that no subsets are drawn; below 0 it means no
    difference.
    """
    function = KERNELS[kernel]
    x, y = wide(x), wide(y)
    cross = sum(function(x[rows], y).sum() for rows in blocks(x, y)) / (len(x) * len(y))
    return (_own(function, x) + _own(function, y) - 2 * cross).item()


def _own(function: Callable[[Tensor, Tensor], Tensor], x: Tensor) -> Tensor:
    """The mean of k over pairs of different items."""
    total = x.new_zeros(())
    for rows in blocks(x, x):
        block = function(x[rows], x)
        total += block.sum() - block.diagonal(rows.start).sum()
    return total / (len(x) * (len(x) - 1))
