"""Rounding: which numbers float32 holds with enough digits."""

from collections.abc import Sequence

import torch
from torch import Tensor

FAR = 2**24 * 1e-4
"""Standard deviations from zero beyond which a step of float32 is more than 1e-4 standard deviations."""


def far_from_zero(mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> bool:
    """Whether some of the features with these means and standard deviations need float64 until they are centered. What
    has no spread does not."""
    mean, std = (torch.as_tensor(value, dtype=torch.float64, device="cpu") for value in (mean, std))
    return bool(((std > 0) & (mean.abs() > FAR * std)).any())
