"""Coefficients in a step's formula: a float of one time for all samples, or (B,) of a time per sample.

The loop steps all samples at once, and its coefficients are floats. Whoever distills a solver asks it at a time per
sample.
"""

import torch
from torch import Tensor

Coefficient = float | Tensor


def scaled(x: Tensor, factor: Coefficient) -> Tensor:
    """factor x, x (B, *event)."""
    return _over(factor, x) * x


def add(x: Tensor, y: Tensor, factor: Coefficient) -> Tensor:
    """x + factor y of x, y (B, *event), in one kernel."""
    factor = _over(factor, y)
    return torch.addcmul(x, factor, y) if isinstance(factor, Tensor) else torch.add(x, y, alpha=factor)


def _over(factor: Coefficient, x: Tensor) -> Coefficient:
    return factor.to(x).view(-1, *[1] * (x.ndim - 1)) if isinstance(factor, Tensor) else factor
