"""ADM, the ablated diffusion model (Dhariwal and Nichol 2021, section 3; its predecessor: Nichol and Dhariwal 2021)."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sde.condition.tree import Condition, Shapes
from sde.networks.adm_options import ADMOptions
from sde.networks.attention import Context, may_fuse
from sde.networks.blocks import ResidualBlock, Stage, stages_of
from sde.networks.embedding import Embedding
from sde.networks.encoding import Encoding, with_residuals
from sde.networks.layers import (
    CONVOLUTIONS,
    check_input,
    crop,
    pad,
    run,
    split_shape,
    zero_init,
)
from sde.networks.mapping import ADMMapping, split_augmentation
from sde.networks.resample import AVERAGE_POOLS, resampler
from sde.networks.unet_options import attended_levels, takes_options


class ADMEncoder(nn.Module):
    """At each level ``num_res_blocks`` stages, then half the resolution; below the last level the middle blocks.

    Raises ValueError for an event shape without 1 to 3 axes of space, attention at a resolution that no level has, and
    a number of heads that does not divide the channels.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        num_classes: int | None,
        options: ADMOptions,
        conditions: Shapes | None = None,
    ) -> None:
        super().__init__()
        self.inputs, space = split_shape(event_shape, "ADM")
        self.options = options
        self.attended = attended_levels(space, len(options.channel_mult), options.attention_resolutions)
        self.shared = shared = options.blocks(len(space))
        mapping = ADMMapping(options.channels, shared.width, num_classes, options.augment_dim)
        self.embedding = Embedding(
            shared.width, num_classes, conditions, event_shape, mapping=mapping, sequence_layers=options.sequence_layers
        )
        self.cross = self.embedding.sequence is not None
        channels, conv = options.level_channels, CONVOLUTIONS[shared.dims]
        current = channels[0]
        self.stem = conv(self.inputs + self.embedding.channels, current, 3, padding=1)
        self.levels, self.downs, self.skip_channels = nn.ModuleList(), nn.ModuleList(), [[current]]
        for level, outputs in enumerate(channels):
            count, attention = options.num_res_blocks, self.attended[level]
            self.levels.append(stages_of(shared, current, outputs, [0] * count, attention, self.cross))
            self.skip_channels[-1] += [outputs] * count
            current = outputs
            if level < len(channels) - 1:
                self.downs.append(self._half(current))
                self.skip_channels.append([current])
        self.channels = current
        middle = Stage(shared, current, current, options.middle_attention, self.cross)
        self.middle = nn.ModuleList([middle, Stage(shared, current, current, False)])

    def _half(self, channels: int) -> nn.Module:
        dims = self.shared.dims
        if self.options.resample_blocks:
            return ResidualBlock(self.shared, channels, channels, resampler(dims))
        if self.options.resample_conv:
            return CONVOLUTIONS[dims](channels, channels, 3, stride=2, padding=1)
        return AVERAGE_POOLS[dims](2)

    def forward(
        self, x: Tensor, c_noise: Tensor, cond: Condition | None = None, hint: Tensor | None = None
    ) -> tuple[list[list[Tensor]], Tensor, Tensor, Context | None]:
        """x (B, *event), c_noise (B,) -> the activations of each level, those of the middle, the embedding (B, width),
        and the context. A ``hint`` (B, channels, *space) is added behind the first convolution."""
        check_input(x, self.inputs, self.shared.dims)
        recompute, fused = self.options.activation_checkpointing, may_fuse(self, x)
        cond, augmentation = split_augmentation(cond, self.options.augment_dim)
        inputs, embedding, context = self.embedding(x, c_noise, cond, augmentation)
        h = self.stem(pad(inputs, self.options.factor))
        h = h if hint is None else h + pad(hint, self.options.factor)
        skips = [[h]]
        for level, stages in enumerate(self.levels):
            for stage in stages.children():
                h = run(stage, h, embedding, context, fused, recompute=recompute)
                skips[-1].append(h)
            if level < len(self.downs):
                down = self.downs[level]
                h = run(down, h, embedding, recompute=recompute) if self.options.resample_blocks else down(h)
                skips.append([h])
        for stage in self.middle:
            h = run(stage, h, embedding, context, fused, recompute=recompute)
        return skips, h, embedding, context


@takes_options(ADMOptions)
class ADM(nn.Module):
    """forward(x, c_noise, cond) -> a tensor of the shape of x (B, channels, *space); any size, by padding and cropping.

    A residual U-Net in which residual blocks resample, with self-attention at chosen resolutions and in the middle, and
    an output that starts at zero. The sizes of the paper are channels 192 and channel_mult (1, 2, 3, 4) for 64x64, 256
    and (1, 1, 2, 3, 4) for 128x128, (1, 1, 2, 2, 4, 4) for 256x256, (0.5, 1, 1, 2, 2, 4, 4) for 512x512, with attention
    at 32, 16 and 8.

    ``cond`` holds labels below ``num_classes``, -1 for null, and what ``conditions`` gives the shapes of, as for
    ``UNet``; None is all null. ``num_heads_upsample`` is the number of heads on the way up, where it is not that of the
    way down. With ``learned_variance`` the head has as many channels again, from which networks that were trained so
    interpolate the variance of a step (Nichol and Dhariwal 2021, eq. 15): they are kept, and not returned.
    ``event_shape`` is (channels, *space) with one to three axes of space; the other keyword arguments are those of
    ``ADMOptions``.
    """

    decoder = ("levels", "ups", "upsample", "norm", "head")
    tokens = False

    def __init__(
        self,
        event_shape: Sequence[int],
        num_classes: int | None = None,
        *,
        num_heads_upsample: int = 0,
        learned_variance: bool = False,
        conditions: Shapes | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.num_classes, chosen = num_classes, ADMOptions(**options)
        self.encoder = encoder = ADMEncoder(event_shape, num_classes, chosen, conditions)
        self.conditions = encoder.embedding.conditions
        shared = replace(encoder.shared, num_heads=num_heads_upsample or encoder.shared.num_heads)
        current, conv = encoder.channels, CONVOLUTIONS[shared.dims]
        self.tap_channels = [*chain.from_iterable(encoder.skip_channels), current]
        self.hint_shape = (chosen.level_channels[0], *event_shape[1:])
        self.levels, self.ups = nn.ModuleList(), nn.ModuleList()
        self.upsample = resampler(shared.dims, up=True)
        for level, outputs in reversed(list(enumerate(chosen.level_channels))):
            skips, attention = encoder.skip_channels[level][::-1], encoder.attended[level]
            self.levels.append(stages_of(shared, current, outputs, skips, attention, encoder.cross))
            current = outputs
            if level and chosen.resample_blocks:
                self.ups.append(ResidualBlock(shared, current, current, self.upsample))
            elif level and chosen.resample_conv:
                self.ups.append(conv(current, current, 3, padding=1))
            else:
                self.ups.append(nn.Identity())
        self.norm = shared.norm(current)
        self.head = zero_init(conv(current, encoder.inputs * (2 if learned_variance else 1), 3, padding=1))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        return self.decode(x, c_noise, self.encode(x, c_noise, cond))

    def encode(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None, hint: Tensor | None = None) -> Encoding:
        """The way down and the middle (sde.networks.encoding)."""
        skips, h, embedding, context = self.encoder(x, c_noise, cond, hint)
        return Encoding([*chain.from_iterable(skips), h], embedding, context)

    def decode(self, x: Tensor, c_noise: Tensor, encoding: Encoding, residuals: Sequence[Tensor] = ()) -> Tensor:
        """The way up."""
        options = self.encoder.options
        recompute, fused = options.activation_checkpointing, may_fuse(self, x)
        *skips, h = with_residuals(encoding.taps, residuals)
        embedding, context = encoding.embedding, encoding.context
        for stages, up in zip(self.levels, self.ups, strict=True):
            for stage in stages.children():
                h = run(stage, torch.cat([h, skips.pop()], dim=1), embedding, context, fused, recompute=recompute)
            if skips:
                h = run(up, h, embedding, recompute=recompute) if options.resample_blocks else up(self.upsample(h))
        return crop(self.head(F.silu(self.norm(h)))[:, : x.shape[1]], x.shape[2:])
