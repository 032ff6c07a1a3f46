"""Resampling by 2 with a low-pass filter, against aliasing (Zhang 2019), in one to three dimensions."""

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TAPS = (1 / 8, 3 / 8, 3 / 8, 1 / 8)
"""The filter along each axis (Karras et al. 2019): of gain 1, half of it from even and half from odd positions."""

CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONVOLVE_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
AVERAGE_POOLS = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}


class Resample(nn.Module):
    """Each channel filtered, and each axis of space halved or, with ``up``, doubled; x is zero beyond its border.

    Down, for even sizes: y[i] = sum_k TAPS[k] x[2 i - 1 + k] along each axis. Up, which is the transpose of down times
    2^dims: y[j] = sum_i 2 TAPS[j + 1 - 2 i] x[i]. Both keep constants, except at the border.
    """

    kernel: Tensor

    def __init__(self, dims: int, up: bool = False) -> None:
        super().__init__()
        self.convolve = CONVOLVE_TRANSPOSED[dims] if up else CONVOLVE[dims]
        taps = torch.tensor(TAPS) * (2 if up else 1)
        kernel = reduce(lambda product, axis: product[..., None] * axis, [taps] * dims)
        self.register_buffer("kernel", kernel[None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, *space) -> (B, C, *space / 2), or (B, C, *2 space)."""
        channels = x.shape[1]
        kernel = self.kernel.expand(channels, *self.kernel.shape)
        return self.convolve(x, kernel, stride=2, padding=1, groups=channels)


def resampler(dims: int, fir: bool, up: bool = False) -> nn.Module:
    """Halves each axis of space or, with ``up``, doubles it: by ``Resample``, or by averaging and repeating."""
    if fir:
        return Resample(dims, up)
    return nn.Upsample(scale_factor=2.0, mode="nearest") if up else AVERAGE_POOLS[dims](2)


def space_to_channels(x: Tensor) -> Tensor:
    """Blocks of 2 positions along each axis of space as channels: (B, C, *space) -> (B, C 2^dims, *space / 2)."""
    dims = x.ndim - 2
    blocks = x.reshape(*x.shape[:2], *(n for size in x.shape[2:] for n in (size // 2, 2)))
    order = (0, 1, *range(3, 3 + 2 * dims, 2), *range(2, 2 + 2 * dims, 2))
    return blocks.permute(order).flatten(1, 1 + dims)
