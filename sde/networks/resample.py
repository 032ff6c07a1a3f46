"""Resampling by 2 with a low-pass filter, against aliasing (Zhang 2019), in one to three dimensions."""

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sde.networks.layers import CONVOLUTIONS

TAPS = (1 / 8, 3 / 8, 3 / 8, 1 / 8)
"""The filter along each axis (Karras et al. 2019): of gain 1, half of it from even and half from odd positions."""

CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONVOLVE_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
AVERAGE_POOLS = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}


def fir_kernel(taps: Sequence[float], dims: int) -> Tensor:
    """The product along each of ``dims`` axes of taps that are brought to sum 1: (1, *taps). No state holds it, so that
    it is made on the meta device, too."""
    device = torch.get_default_device()
    row = torch.tensor(taps, dtype=torch.float64, device="cpu")
    kernel = reduce(lambda product, axis: product[..., None] * axis, [row / row.sum()] * dims)
    return kernel[None].to("cpu" if device.type == "meta" else device, torch.get_default_dtype())


class Resample(nn.Module):
    """Each channel filtered, and each axis of space halved or, with ``up``, doubled; x is zero beyond its border or,
    with ``reflect``, which takes four taps, x[-1] = x[1]. The filter is in files with ``reflect`` alone.

    With an even number k of taps of sum 1, down, for even sizes: y[i] = sum_j taps[j] x[2 i + 1 - k / 2 + j] along each
    axis. Up, which is the transpose of down times 2^dims: y[j] = sum_i 2 taps[j - 2 i + k / 2 - 1] x[i]. Both keep
    constants, at the border only with ``reflect``.
    """

    kernel: Tensor

    def __init__(self, dims: int, up: bool = False, taps: Sequence[float] = TAPS, reflect: bool = False) -> None:
        super().__init__()
        self.convolve = CONVOLVE_TRANSPOSED[dims] if up else CONVOLVE[dims]
        self.reflect, self.padding = reflect, (3 if up else 0) if reflect else len(taps) // 2 - 1
        self.register_buffer("kernel", fir_kernel(taps, dims) * (2**dims if up else 1), persistent=reflect)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, *space) -> (B, C, *space / 2), or (B, C, *2 space)."""
        channels = x.shape[1]
        x = mirror(x) if self.reflect else x
        kernel = self.kernel.expand(channels, *self.kernel.shape)
        return self.convolve(x, kernel, stride=2, padding=self.padding, groups=channels)


def mirror(x: Tensor) -> Tensor:
    """x (B, C, *space) with one entry more at each end of each axis of space: the second one from there, or the only
    one."""
    for axis in range(2, x.ndim):
        inner = min(1, x.shape[axis] - 1)
        x = torch.cat([x.narrow(axis, inner, 1), x, x.narrow(axis, -1 - inner, 1)], axis)
    return x


def resampler(dims: int, taps: Sequence[float] | None = None, up: bool = False) -> nn.Module:
    """Halves each axis of space or, with ``up``, doubles it: by ``Resample`` with these taps or, without any, by
    averaging and repeating, which are the same as two equal taps."""
    if taps and tuple(taps) != (taps[0], taps[0]):
        return Resample(dims, up, taps)
    return nn.Upsample(scale_factor=2.0, mode="nearest") if up else AVERAGE_POOLS[dims](2)


class ConvolutionDown(nn.Module):
    """A convolution of width 3 that halves each axis of space, of x filtered with ``taps``, zero beyond its border.

    Without taps there is no filter, and it starts at the first position (Ho et al. 2020). With them, the filtered x is
    not cut off at the border before the convolution (Karras et al. 2020, appendix B).
    """

    kernel: Tensor | None

    def __init__(self, dims: int, inputs: int, outputs: int, taps: Sequence[float] | None = None) -> None:
        super().__init__()
        self.conv, self.convolve = CONVOLUTIONS[dims](inputs, outputs, 3, stride=2), CONVOLVE[dims]
        self.padding = len(taps) // 2 if taps else 0
        self.register_buffer("kernel", fir_kernel(taps, dims) if taps else None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, inputs, *space) -> (B, outputs, *space / 2), for even sizes."""
        if self.kernel is None:
            return self.conv(F.pad(x, (0, 1) * (x.ndim - 2)))
        kernel = self.kernel.expand(x.shape[1], *self.kernel.shape)
        return self.conv(self.convolve(x, kernel, padding=self.padding, groups=x.shape[1]))


class ConvolutionUp(nn.Module):
    """A convolution of width 3 of x whose axes of space are doubled by a filter with ``taps`` or, without them, by
    repeating; the filtered x is not cut off at the border before the convolution (Karras et al. 2020, appendix B)."""

    def __init__(self, dims: int, inputs: int, outputs: int, taps: Sequence[float] | None = None) -> None:
        super().__init__()
        self.conv, self.filter = CONVOLUTIONS[dims](inputs, outputs, 3), resampler(dims, taps, up=True)
        if isinstance(self.filter, Resample) and self.filter.padding:
            self.filter.padding -= 1
        else:
            self.conv.padding = (1,) * dims

    def forward(self, x: Tensor) -> Tensor:
        """x (B, inputs, *space) -> (B, outputs, *2 space)."""
        return self.conv(self.filter(x))


def space_to_channels(x: Tensor) -> Tensor:
    """Blocks of 2 positions along each axis of space as channels: (B, C, *space) -> (B, C 2^dims, *space / 2)."""
    dims = x.ndim - 2
    halves = [n for size in x.shape[2:] for n in (size // 2, 2)]
    blocks = x.reshape(*x.shape[:2], *halves)
    order = (0, 1, *range(3, 3 + 2 * dims, 2), *range(2, 2 + 2 * dims, 2))
    return blocks.permute(order).flatten(1, 1 + dims)
