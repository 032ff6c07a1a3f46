"""A U-Net over signals, images or volumes (Ho et al. 2020, appendix B; Dhariwal and Nichol 2021, section 3)."""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sde.condition.tree import Condition, Shapes
from sde.networks.attention import Context, may_fuse
from sde.networks.blocks import ResidualBlock, Stage, stages_of
from sde.networks.embedding import Embedding
from sde.networks.encoding import Encoding, with_residuals
from sde.networks.layers import (
    CONVOLUTIONS,
    BlockOptions,
    check_input,
    crop,
    group_norm,
    pad,
    residual_sum,
    run,
    split_shape,
    zero_init,
)
from sde.networks.resample import TAPS, Resample, resampler
from sde.networks.unet_options import UNetOptions, takes_options


class UNetEncoder(nn.Module):
    """At each level ``num_res_blocks`` stages, then half the resolution.

    Raises ValueError for an event shape without 1 to 3 axes of space, and as ``UNetOptions.attended`` does.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        num_classes: int | None,
        options: UNetOptions,
        conditions: Shapes | None = None,
    ) -> None:
        super().__init__()
        self.inputs, space = split_shape(event_shape, "U-Net")
        self.options, self.attended = options, options.attended(space)
        self.taps = TAPS if options.resampling == "fir" else None
        channels, last = options.channels, len(options.channel_mult) - 1
        self.shared = shared = BlockOptions(len(space), 4 * channels, options.dropout, options.skip_rescale)
        self.embedding = Embedding(
            shared.width,
            num_classes,
            conditions,
            event_shape,
            options.noise_embedding,
            options.fourier_scale,
            sequence_layers=options.sequence_layers,
        )
        self.cross = self.embedding.sequence is not None
        conv, inputs = CONVOLUTIONS[shared.dims], self.inputs + self.embedding.channels
        self.stem = conv(inputs, channels, 3, padding=1)
        self.filter = Resample(shared.dims) if self.taps else nn.Identity()
        down = partial(conv, kernel_size=3, stride=1 if self.taps else 2, padding=1)
        self.levels, self.downs, self.projections = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.skip_channels = [[channels]]
        current, projected = channels, inputs
        for level, multiplier in enumerate(options.channel_mult):
            count, outputs = options.num_res_blocks, channels * multiplier
            self.levels.append(stages_of(shared, current, outputs, [0] * count, self.attended[level], self.cross))
            self.skip_channels[-1] += [outputs] * count
            current = outputs
            if level < last:
                if options.resample_blocks:
                    self.downs.append(ResidualBlock(shared, current, current, resampler(shared.dims, self.taps)))
                else:
                    self.downs.append(down(current, current))
                if options.progressive_input == "residual":
                    self.projections.append(down(projected, current))
                    projected = current
                self.skip_channels.append([current])
        self.channels = current

    def forward(
        self, x: Tensor, c_noise: Tensor, cond: Condition | None = None, hint: Tensor | None = None
    ) -> tuple[list[list[Tensor]], Tensor, Context | None]:
        """x (B, *event), c_noise (B,) -> the activations of each level, the embedding (B, width), and the context. A
        ``hint`` (B, channels, *space) is added behind the first convolution."""
        check_input(x, self.inputs, self.shared.dims)
        recompute, fused = self.options.activation_checkpointing, may_fuse(self, x)
        inputs, embedding, context = self.embedding(x, c_noise, cond)
        projected = pad(inputs, self.options.factor)
        h = self.stem(projected)
        h = h if hint is None else h + pad(hint, self.options.factor)
        skips = [[h]]
        for level, stages in enumerate(self.levels):
            for stage in stages.children():
                h = run(stage, h, embedding, context, fused, recompute=recompute)
                skips[-1].append(h)
            if level < len(self.downs):
                down = self.downs[level]
                if self.options.resample_blocks:
                    h = run(down, h, embedding, recompute=recompute)
                else:
                    h = down(self.filter(h))
                if self.projections:
                    projection = self.projections[level](self.filter(projected))
                    h = projected = residual_sum(h, projection, self.shared.rescale)
                skips.append([h])
        return skips, embedding, context


@takes_options(UNetOptions)
class UNet(nn.Module):
    """forward(x, c_noise, cond) -> a tensor of the shape of x (B, channels, *space); any size, by padding and cropping.

    A residual U-Net with adaptive group norm from the noise and class embedding, self-attention at chosen resolutions
    and in the middle, and an output that starts at zero. ``cond`` holds labels below ``num_classes``, -1 for null, and
    what ``conditions`` gives the shapes of: a vector joins the embedding, an image the channels of x, and where there
    is self-attention, and in the middle, positions attend to the tokens of a sequence (sde.condition); None is all
    null.

    ``event_shape`` is (channels, *space) with one to three axes of space; the other keyword arguments are those of
    ``UNetOptions``.
    """

    decoder = ("levels", "ups", "filter", "norm", "head")
    tokens = False

    def __init__(
        self,
        event_shape: Sequence[int],
        num_classes: int | None = None,
        *,
        conditions: Shapes | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.num_classes, chosen = num_classes, UNetOptions(**options)
        self.encoder = encoder = UNetEncoder(event_shape, num_classes, chosen, conditions)
        self.conditions, cross = encoder.embedding.conditions, encoder.cross
        shared, current = encoder.shared, encoder.channels
        self.tap_channels = [*chain.from_iterable(encoder.skip_channels), current]
        self.hint_shape = (chosen.channels, *event_shape[1:])
        conv = CONVOLUTIONS[shared.dims]
        self.middle = nn.ModuleList(
            [Stage(shared, current, current, any(encoder.attended), cross), Stage(shared, current, current, False)]
        )
        self.levels, self.ups = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(chosen.channel_mult))):
            skips, outputs = encoder.skip_channels[level][::-1], chosen.channels * chosen.channel_mult[level]
            self.levels.append(stages_of(shared, current, outputs, skips, encoder.attended[level], cross))
            current = outputs
            if not level:
                self.ups.append(nn.Identity())
            elif chosen.resample_blocks:
                double = resampler(shared.dims, encoder.taps, up=True)
                self.ups.append(ResidualBlock(shared, current, current, double))
            else:
                self.ups.append(conv(current, current, 3, padding=1))
        self.filter = resampler(shared.dims, encoder.taps, up=True)
        self.norm, self.head = group_norm(current), zero_init(conv(current, event_shape[0], 3, padding=1))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        return self.decode(x, c_noise, self.encode(x, c_noise, cond))

    def encode(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None, hint: Tensor | None = None) -> Encoding:
        """The way down and the middle (sde.networks.encoding)."""
        recompute, fused = self.encoder.options.activation_checkpointing, may_fuse(self, x)
        skips, embedding, context = self.encoder(x, c_noise, cond, hint)
        h = skips[-1][-1]
        for stage in self.middle:
            h = run(stage, h, embedding, context, fused, recompute=recompute)
        return Encoding([*chain.from_iterable(skips), h], embedding, context)

    def decode(self, x: Tensor, c_noise: Tensor, encoding: Encoding, residuals: Sequence[Tensor] = ()) -> Tensor:
        """The way up."""
        options, fused = self.encoder.options, may_fuse(self, x)
        recompute, resample_blocks = options.activation_checkpointing, options.resample_blocks
        *skips, h = with_residuals(encoding.taps, residuals)
        embedding, context = encoding.embedding, encoding.context
        for stages, up in zip(self.levels, self.ups, strict=True):
            for stage in stages.children():
                h = run(stage, torch.cat([h, skips.pop()], dim=1), embedding, context, fused, recompute=recompute)
            if skips:
                h = run(up, h, embedding, recompute=recompute) if resample_blocks else up(self.filter(h))
        return crop(self.head(F.silu(self.norm(h))), x.shape[2:])
