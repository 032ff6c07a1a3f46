"""Weights of multistep methods on any grid, in float64: the one place that computes them."""

from functools import lru_cache

import numpy as np

_points, _masses = np.polynomial.legendre.leggauss(24)
POINTS, MASSES = (_points + 1) / 2, _masses / 2
"""Gauss-Legendre quadrature on [0, 1], exact up to degree 47."""


def lagrange(nodes: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The Lagrange basis polynomials of ``nodes`` (k,) evaluated ``at`` (m,): (k, m)."""
    own = np.eye(len(nodes), dtype=bool)
    gaps = np.where(own, 1, nodes[:, None] - nodes)
    return np.where(own[:, :, None], 1, (at - nodes[:, None]) / gaps[:, :, None]).prod(1)


@lru_cache(4096)
def exponential_weights(nodes: tuple[float, ...], start: float, end: float, rate: float) -> tuple[float, ...]:
    """Weights w with sum_j w_j p(nodes_j) = integral from start to end of exp(rate (u - end)) p(u) du for every
    polynomial p of degree below the number of nodes.

    These are the coefficients of exponential Adams methods (Hochbruck and Ostermann 2010, section 2): of a bounded
    combination of phi functions, but by quadrature, which has none of their cancellation where steps are small.
    ``rate`` 0 gives the classical Adams-Bashforth weights, a node beyond ``start`` those of Adams-Moulton.
    """
    u = start + (end - start) * POINTS
    mass = (end - start) * MASSES * np.exp(rate * (u - end))
    return tuple((lagrange(np.array(nodes), u) @ mass).tolist())


@lru_cache(4096)
def divided_differences(nodes: tuple[float, ...]) -> np.ndarray:
    """The matrix (k, k) that takes values at ``nodes`` to their divided differences [f_0], [f_0, f_1], ... ."""
    rows = np.eye(len(nodes))
    table = [rows[0]]
    for order in range(1, len(nodes)):
        gaps = np.array(nodes[:-order]) - np.array(nodes[order:])
        rows = (rows[:-1] - rows[1:]) / gaps[:, None]
        table.append(rows[0])
    return np.stack(table)
