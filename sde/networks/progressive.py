"""Progressive input and output: pyramids of both beside a U-Net (Song et al. 2021, appendix H)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sde.networks.layers import CONVOLUTIONS, BlockOptions, residual_sum, zero_init
from sde.networks.resample import ConvolutionDown, ConvolutionUp, resampler

PROGRESSIVE = ("none", "skip", "residual")
COMBINATIONS = ("sum", "cat")


class SkipInput(nn.Module):
    """The pyramid halved, and joined with the features by a convolution of width 1: added, or with ``cat`` in further
    channels before them."""

    def __init__(self, dims: int, pyramid: int, channels: int, taps: Sequence[float] | None, cat: bool) -> None:
        super().__init__()
        self.down = resampler(dims, taps)
        self.conv, self.cat = CONVOLUTIONS[dims](pyramid, channels, 1), cat
        self.pyramid, self.outputs = pyramid, 2 * channels if cat else channels

    def forward(self, pyramid: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """The pyramid above and features (B, channels, *space) -> the pyramid of this size, and features with it."""
        pyramid = self.down(pyramid)
        joined = self.conv(pyramid)
        return pyramid, torch.cat([joined, h], dim=1) if self.cat else joined + h


class ResidualInput(nn.Module):
    """The pyramid halved by a convolution; its residual sum with the features is both the pyramid and the features."""

    def __init__(self, options: BlockOptions, pyramid: int, channels: int, taps: Sequence[float] | None) -> None:
        super().__init__()
        self.down, self.rescale = ConvolutionDown(options.dims, pyramid, channels, taps), options.rescale
        self.pyramid = self.outputs = channels

    def forward(self, pyramid: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        pyramid = residual_sum(h, self.down(pyramid), self.rescale)
        return pyramid, pyramid


class Head(nn.Module):
    """Features to an output by a norm, an activation and a convolution, zero at first where it is of the model."""

    def __init__(self, options: BlockOptions, inputs: int, outputs: int, zero: bool = True) -> None:
        super().__init__()
        conv = CONVOLUTIONS[options.dims](inputs, outputs, 3, padding=1)
        self.norm, self.conv = options.norm(inputs), zero_init(conv) if zero else conv

    def forward(self, h: Tensor) -> Tensor:
        return self.conv(F.silu(self.norm(h)))


class SkipOutput(nn.Module):
    """The pyramid doubled, plus what the features of this size give, which at the ``first`` is all."""

    def __init__(
        self, options: BlockOptions, first: bool, channels: int, outputs: int, taps: Sequence[float] | None
    ) -> None:
        super().__init__()
        self.up = None if first else resampler(options.dims, taps, up=True)
        self.head = Head(options, channels, outputs)

    def forward(self, pyramid: Tensor | None, h: Tensor) -> tuple[Tensor, Tensor]:
        """The pyramid below (B, outputs, *space / 2) and features (B, channels, *space) -> the pyramid of this size,
        and the features, unchanged."""
        added = self.head(h)
        return (added if pyramid is None or self.up is None else self.up(pyramid) + added), h


class ResidualOutput(nn.Module):
    """The pyramid doubled by a convolution; its residual sum with the features is both the pyramid and the features. At
    the ``first``, the pyramid is what the features give, which stay as they are."""

    def __init__(self, options: BlockOptions, pyramid: int | None, channels: int, taps: Sequence[float] | None) -> None:
        super().__init__()
        self.head = Head(options, channels, channels, zero=False) if pyramid is None else nn.Identity()
        self.up = None if pyramid is None else ConvolutionUp(options.dims, pyramid, channels, taps)
        self.rescale = options.rescale

    def forward(self, pyramid: Tensor | None, h: Tensor) -> tuple[Tensor, Tensor]:
        if self.up is None or pyramid is None:
            return self.head(h), h
        pyramid = residual_sum(self.up(pyramid), h, self.rescale)
        return pyramid, pyramid
