"""The tiny autoencoder of images of the TAESD family (github madebyollin/taesd), by its own names of weights."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sde.autoencoder.base import Autoencoder
from sde.networks.layers import check_counts, check_input, crop, pad, split_shape

MAGNITUDE = 3.0
"""Latents are kept within this magnitude, softly, before they are decoded."""


class Block(nn.Module):
    """Three convolutions and a residual sum under a ReLU; where ``pooled``, before them a bottleneck turned outwards
    with group norm, whose statistics are of the whole image."""

    def __init__(self, width: int, pooled: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            convolution(width, width), nn.ReLU(), convolution(width, width), nn.ReLU(), convolution(width, width)
        )
        wide = 4 * width
        self.pool = (
            nn.Sequential(
                nn.Conv2d(width, wide, 1, bias=False), nn.GroupNorm(4, wide), nn.ReLU(),
                nn.Conv2d(wide, width, 1, bias=False),
            )
            if pooled
            else None
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.pool is None else x + self.pool(x)
        return F.relu(self.conv(x) + x)


class SoftClamp(nn.Module):
    """MAGNITUDE tanh(z / MAGNITUDE)."""

    def forward(self, z: Tensor) -> Tensor:
        return MAGNITUDE * torch.tanh(z / MAGNITUDE)


def convolution(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """One of width 3 that keeps the size, or halves it."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)


class TinyAutoencoder(Autoencoder):
    """An encoder and a decoder of plain convolutions, whose levels halve an image, which may be of any size: it is
    padded with zeros at its ends to a multiple of the factor by which the latent is coarser, and what is decoded is
    cropped. y is in [0, 1]; the encoder is deterministic.

    ``event_shape`` is (channels, height, width); ``encoder_blocks`` and ``decoder_blocks`` are those of each level, in
    the order in which they come. ``midblock_norm`` is called use_midblock_gn there: taef2 has it, with 32
    ``latent_channels``; taesd and taesdxl with 4, and taesd3 and taef1 with 16, do not. Raises ValueError for items
    that are no images, for numbers below 1, and where the levels are not equally many.
    """

    unit_range = (0.0, 1.0)

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_channels: int = 4,
        midblock_norm: bool = False,
        width: int = 64,
        encoder_blocks: Sequence[int] = (1, 3, 3, 3),
        decoder_blocks: Sequence[int] = (3, 3, 3, 1),
    ) -> None:
        channels, space = split_shape(event_shape, "tiny autoencoder")
        if len(space) != 2:
            raise ValueError(f"a tiny autoencoder takes images (channels, height, width), not {tuple(event_shape)}")
        check_counts(latent_channels=latent_channels, width=width, encoder_blocks=encoder_blocks,
                     decoder_blocks=decoder_blocks)  # fmt: skip
        if len(encoder_blocks) != len(decoder_blocks):
            raise ValueError(
                f"encoder_blocks = {tuple(encoder_blocks)} and decoder_blocks = {tuple(decoder_blocks)}: need as many "
                "levels"
            )
        factor = 2 ** (len(encoder_blocks) - 1)
        super().__init__(event_shape, (latent_channels, *(math.ceil(size / factor) for size in space)))
        self.factor = factor

        def blocks(count: int, pooled: bool) -> list[nn.Module]:
            return [Block(width, pooled and midblock_norm) for _ in range(count)]

        # The places in these lists are the names of the weights.
        down: list[nn.Module] = [convolution(channels, width)]
        for level, count in enumerate(encoder_blocks):
            down += [convolution(width, width, stride=2, bias=False)] if level else []
            down += blocks(count, level == len(encoder_blocks) - 1)
        up: list[nn.Module] = [SoftClamp(), convolution(latent_channels, width), nn.ReLU()]
        for level, count in enumerate(decoder_blocks):
            up += [nn.Upsample(scale_factor=2.0), convolution(width, width, bias=False)] if level else []
            up += blocks(count, not level)
        self.encoder = nn.Sequential(*down, convolution(width, latent_channels))
        self.decoder = nn.Sequential(*up, convolution(width, channels))

    @property
    def deterministic(self) -> bool:
        return True

    def encode(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Images y (B, *event) in [0, 1] -> their latents (B, *latent), and zeros in their shape."""
        self.inner_shape(y.shape[1:])
        z = self.called(self.encoder, pad(y, self.factor))
        return z, torch.zeros_like(z)

    def decode(self, z: Tensor) -> Tensor:
        """Latents z (B, *latent) -> images (B, *event)."""
        check_input(z, self.latent_shape[0], 2)
        return crop(self.called(self.decoder, z), self.event_shape[1:])
