"""Coefficients on their way into formulas of states: one per sample, or one for all."""

from typing import overload

import torch
from torch import Tensor

from sde.device import send
from sde.process.level import Coefficient


@overload
def expand(coefficient: float, x: Tensor) -> float: ...
@overload
def expand(coefficient: Tensor, x: Tensor) -> Tensor: ...
def expand(coefficient: Coefficient, x: Tensor) -> Coefficient:
    """A coefficient, a float or of shape () or (B,), made ready to multiply x (B, *event).

    A float passes as it is, and so does a 0-d tensor: on the CPU it multiplies a tensor of any device as a scalar,
    without a transfer.
    Raises ValueError for any other shape, where broadcasting would silently mix samples and coordinates.
    """
    if isinstance(coefficient, float) or coefficient.ndim == 0:
        return coefficient
    if coefficient.shape != x.shape[:1]:
        raise ValueError(f"t has shape {tuple(coefficient.shape)}: needs () or ({len(x)},), one time per sample")
    return send(coefficient.to(x.dtype), x.device).view(-1, *[1] * (x.ndim - 1))


def combine(a: Coefficient, x: Tensor, b: Coefficient, y: Tensor) -> Tensor:
    """a x + b y of x, y (B, *event), with coefficients as ``expand`` takes them: two kernels, where the formula as it
    is written would start three."""
    a, b = expand(a, x), expand(b, y)
    return torch.add(a * x, y, alpha=b) if isinstance(b, float) else torch.addcmul(a * x, b, y)
