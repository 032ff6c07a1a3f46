"""Conjugate gradients: linear systems of every sample, solved without a matrix."""

from collections.abc import Callable
from numbers import Integral

import torch
from torch import Tensor

from sde.process.coefficients import expand


def inner(v: Tensor, w: Tensor) -> Tensor:
    """<v, w> of every sample, (B,): summed over the event, never over the batch."""
    return (v * w).flatten(1).sum(1)


def check_iterations(iterations: int) -> int:
    """iterations, or a ValueError unless there is at least one."""
    if not isinstance(iterations, Integral) or iterations < 1:
        raise ValueError(f"iterations = {iterations}: needs an integer of at least 1; without one nothing is guided")
    return iterations


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], b: Tensor, iterations: int, tolerance: float = 1e-6
) -> Tensor:
    """V^-1 b for positive definite V, known by ``product`` = V v; b (B, *measurement) (Hestenes and Stiefel 1952).

    A fixed number of iterations, so that nothing is read back from the device. A sample alone rests, once |V w - b| <=
    tolerance |b|, and where a direction shows that its V is not positive definite. Of its iterates, that with the
    smallest |V w - b| is returned, as V made of a network's Jacobian is neither quite symmetric nor definite.
    """
    w = best = torch.zeros_like(b)
    residual = direction = b
    square = inner(b, b)
    enough, least = tolerance**2 * square, torch.full_like(square, torch.inf)
    for _ in range(iterations):
        image = product(direction)
        curvature = inner(direction, image)
        active = (square > enough) & (curvature > 0)
        # The inner where keeps gradients of resting samples from being NaN.
        size = torch.where(active, square / torch.where(active, curvature, 1), 0)
        w = w + expand(size, b) * direction
        residual = residual - expand(size, b) * image
        before, square = square, inner(residual, residual)
        better = square < least
        best, least = torch.where(expand(better, b) > 0, w, best), torch.where(better, square, least)
        factor = torch.where(active, square / torch.where(active, before, 1), 0)
        direction = residual + expand(factor, b) * direction
    return best
