"""The residual autoencoder with a Gaussian posterior (Kingma and Welling 2014; Rombach et al. 2022, appendix G.1)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from sde.autoencoder.base import Autoencoder
from sde.networks.attention import may_fuse
from sde.networks.blocks import stages_of
from sde.networks.layers import (
    CONVOLUTIONS,
    TRANSPOSED_CONVOLUTIONS,
    BlockOptions,
    check_counts,
    check_input,
    crop,
    group_norm,
    pad,
    run,
    split_shape,
)
from sde.networks.unet_options import attended_levels, takes_options

LOG_VAR_RANGE = (-30.0, 20.0)
"""Where the log-variance of a posterior is kept, so that its standard deviation is positive and finite."""


@dataclass(frozen=True)
class KLOptions:
    """``latent_channels`` of the latent; ``channels`` of the first level and, in units of these, ``channel_mult`` of
    each, whose sizes halve; ``num_res_blocks`` of each level on the way down, and one more on the way up;
    ``attention_resolutions``, sizes of the longest axis with self-attention; ``patch_size``, the side of the patches
    that the first level takes as one position. Raises ValueError for numbers below 1."""

    latent_channels: int = 4
    channels: int = 64
    channel_mult: tuple[int, ...] = (1, 2)
    num_res_blocks: int = 1
    attention_resolutions: tuple[int, ...] = ()
    patch_size: int = 1
    dropout: float = 0.0
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        check_counts(
            latent_channels=self.latent_channels,
            channels=self.channels,
            channel_mult=self.channel_mult,
            num_res_blocks=self.num_res_blocks,
            patch_size=self.patch_size,
        )

    @property
    def factor(self) -> int:
        """By how much the latent is coarser than the items."""
        return self.patch_size * 2 ** (len(self.channel_mult) - 1)


class Levels(nn.Module):
    """Stages of several levels one after another, the resolution changed by ``resamplers`` between them."""

    def __init__(self, levels: Sequence[nn.ModuleList], resamplers: Sequence[nn.Module], recompute: bool) -> None:
        super().__init__()
        self.levels, self.resamplers = nn.ModuleList(levels), nn.ModuleList([*resamplers, nn.Identity()])
        self.recompute = recompute

    def forward(self, h: Tensor) -> Tensor:
        fused = may_fuse(self, h)
        for stages, resampler in zip(self.levels, self.resamplers, strict=True):
            for stage in stages.children():
                h = run(stage, h, None, None, fused, recompute=self.recompute)
            h = resampler(h)
        return h


@takes_options(KLOptions)
class KLAutoencoder(Autoencoder):
    """q(z | y) = N(mean, diag(std^2)) and the mean of p(y | z), by residual networks without skips between them.

    ``event_shape`` is (channels, *space) with one to three axes of space, of any size: items are padded with zeros at
    their ends to a multiple of the factor by which the latent is coarser, and what is decoded is cropped. The latent
    has the shape (latent_channels, *space / factor), rounded up. The other keyword arguments are those of
    ``KLOptions``. Raises ValueError for other shapes, and as ``KLOptions`` does.
    """

    def __init__(self, event_shape: Sequence[int], **options: Any) -> None:
        chosen = KLOptions(**options)
        channels, space = split_shape(event_shape, "KL autoencoder")
        latent = (chosen.latent_channels, *(math.ceil(size / chosen.factor) for size in space))
        super().__init__(event_shape, latent)
        self.options, self.dims = chosen, len(space)
        widths = [chosen.channels * multiplier for multiplier in chosen.channel_mult]
        first, last, recompute = widths[0], widths[-1], chosen.activation_checkpointing
        shared, conv = BlockOptions(self.dims, 0, chosen.dropout), CONVOLUTIONS[self.dims]
        patches = [math.ceil(size / chosen.patch_size) for size in space]
        attended = attended_levels(patches, len(widths), chosen.attention_resolutions)

        def level(number: int, count: int) -> nn.ModuleList:
            width = widths[number]
            return stages_of(shared, width, width, [0] * count, attended[number], False)

        numbers, transposed = range(len(widths)), TRANSPOSED_CONVOLUTIONS[self.dims]
        down = [level(number, chosen.num_res_blocks) for number in numbers]
        halve = [conv(fine, coarse, 3, stride=2, padding=1) for fine, coarse in pairwise(widths)]
        up = [level(number, chosen.num_res_blocks + 1) for number in numbers[::-1]]
        double = [transposed(coarse, fine, 4, stride=2, padding=1) for coarse, fine in pairwise(widths[::-1])]
        # Patches overlap by one position on each side: of one position the kernel is the usual 3.
        kernel, stride = chosen.patch_size + 2, chosen.patch_size
        self.encoder = nn.Sequential(
            conv(channels, first, kernel, stride, padding=1),
            Levels(down, halve, recompute),
            group_norm(last),
            nn.SiLU(),
            conv(last, 2 * chosen.latent_channels, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            conv(chosen.latent_channels, last, 3, padding=1),
            Levels(up, double, recompute),
            group_norm(first),
            nn.SiLU(),
            transposed(first, channels, kernel, stride, padding=1),
        )

    def encode(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Items y (B, *event) -> mean and standard deviation (B, *latent) of their latents."""
        self.inner_shape(y.shape[1:])
        mean, log_var = self.called(self.encoder, pad(y, self.options.factor)).chunk(2, dim=1)
        return mean, (0.5 * log_var.clamp(*LOG_VAR_RANGE)).exp()

    def decode(self, z: Tensor) -> Tensor:
        """Latents z (B, *latent) -> items (B, *event)."""
        check_input(z, self.latent_shape[0], self.dims)
        return crop(self.called(self.decoder, z), self.event_shape[1:])
