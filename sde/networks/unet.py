"""A U-Net over signals, images or volumes (Ho et al. 2020, appendix B; Dhariwal and Nichol 2021, section 3)."""

import math
import warnings
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sde.condition.tree import Condition, Shapes
from sde.networks.attention import Context
from sde.networks.blocks import ResidualBlock, Stage
from sde.networks.embedding import Embedding
from sde.networks.layers import (
    CONVOLUTIONS,
    BlockOptions,
    check_choice,
    check_counts,
    check_input,
    crop,
    group_norm,
    groups_of,
    pad,
    residual_sum,
    run,
    split_shape,
    zero_init,
)
from sde.networks.resample import Resample, resampler

RESAMPLINGS = ("conv", "fir")


PROGRESSIVE_INPUTS = ("none", "residual")


class UNetEncoder(nn.Module):
    """At each level ``blocks`` stages, then half the resolution; ``UNet`` describes the options.

    Raises ValueError for an event shape without 1 to 3 axes of space, unknown names, counts below 1 and attention at
    a resolution that no level has; warns where group norm can form one group only.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        num_classes: int | None,
        channels: int,
        multipliers: Sequence[int],
        blocks: int,
        attention: Sequence[int],
        dropout: float,
        resampling: str,
        resample_blocks: bool,
        noise_embedding: str,
        fourier_scale: float,
        skip_rescale: bool,
        progressive_input: str,
        checkpointing: bool,
        conditions: Shapes | None = None,
    ) -> None:
        super().__init__()
        self.inputs, space = split_shape(event_shape, "U-Net")
        check_choice("resampling", resampling, RESAMPLINGS)
        check_choice("progressive_input", progressive_input, PROGRESSIVE_INPUTS)
        check_counts(channels=channels, blocks=blocks, multipliers=multipliers)
        if groups_of(channels) == 1:
            warnings.warn(
                f"channels = {channels} can be normalized in one group only: a multiple of 8 suits group norm better",
                UserWarning,
                stacklevel=2,
            )
        last = len(multipliers) - 1
        self.factor = 2**last
        sizes = [math.ceil(max(space) / self.factor) * self.factor >> level for level in range(last + 1)]
        unknown = set(attention) - set(sizes)
        if unknown:
            raise ValueError(
                f"attention at resolution {min(unknown)}: the resolutions are {', '.join(map(str, sizes))}"
            )
        self.attended = [size in attention for size in sizes]
        self.options = options = BlockOptions(len(space), 4 * channels, dropout, skip_rescale)
        self.fir, self.resample_blocks, self.checkpointing = resampling == "fir", resample_blocks, checkpointing
        self.embedding = Embedding(options.width, num_classes, conditions, event_shape, noise_embedding, fourier_scale)
        cross = self.embedding.sequence is not None
        self.crossed = [attended and cross for attended in self.attended]
        conv, inputs = CONVOLUTIONS[options.dims], self.inputs + self.embedding.channels
        self.stem = conv(inputs, channels, 3, padding=1)
        self.filter = Resample(options.dims) if self.fir else nn.Identity()
        down = partial(conv, kernel_size=3, stride=1 if self.fir else 2, padding=1)
        self.levels, self.downs, self.projections = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.skip_channels = [[channels]]
        current, projected = channels, inputs
        for level, multiplier in enumerate(multipliers):
            stages = nn.ModuleList()
            for _ in range(blocks):
                stages.append(Stage(options, current, channels * multiplier, self.attended[level], self.crossed[level]))
                current = channels * multiplier
                self.skip_channels[-1].append(current)
            self.levels.append(stages)
            if level < last:
                if resample_blocks:
                    self.downs.append(ResidualBlock(options, current, current, resampler(options.dims, self.fir)))
                else:
                    self.downs.append(down(current, current))
                if progressive_input == "residual":
                    self.projections.append(down(projected, current))
                    projected = current
                self.skip_channels.append([current])
        self.channels = current

    def forward(
        self, x: Tensor, c_noise: Tensor, cond: Condition | None = None
    ) -> tuple[list[list[Tensor]], Tensor, Context | None]:
        """x (B, *event), c_noise (B,) -> the activations of each level, the embedding (B, width), and the context."""
        check_input(x, self.inputs, self.options.dims)
        inputs, embedding, context = self.embedding(x, c_noise, cond)
        projected = pad(inputs, self.factor)
        h = self.stem(projected)
        skips = [[h]]
        for level, stages in enumerate(self.levels):
            for stage in stages.children():
                h = run(stage, h, embedding, context, recompute=self.checkpointing)
                skips[-1].append(h)
            if level < len(self.downs):
                down = self.downs[level]
                if self.resample_blocks:
                    h = run(down, h, embedding, recompute=self.checkpointing)
                else:
                    h = down(self.filter(h))
                if self.projections:
                    projection = self.projections[level](self.filter(projected))
                    h = projected = residual_sum(h, projection, self.options.rescale)
                skips.append([h])
        return skips, embedding, context


class UNet(nn.Module):
    """forward(x, c_noise, cond) -> a tensor of the shape of x (B, channels, *space); any size, by padding and cropping.

    A residual U-Net with adaptive group norm from the noise and class embedding, self-attention at chosen resolutions
    and in the middle, and an output that starts at zero. ``cond`` holds labels below ``num_classes``, -1 for null, and
    what ``conditions`` gives the shapes of: a vector joins the embedding, an image the channels of x, and where there
    is self-attention, and in the middle, positions attend to the tokens of a sequence (sde.condition); None is all
    null.

    ``event_shape`` is (channels, *space) with one to three axes of space; ``multipliers`` gives the channels of each
    level in units of ``channels``, ``attention`` the resolutions (sizes of the longest axis) that get self-attention.
    The other options, together, make an NCSN++ (Song et al. 2021, appendix H):

    - ``resampling``: "conv" halves by strided convolutions and doubles by repeating before a convolution; "fir" filters
      by ``Resample`` before a convolution both ways.
    - ``resample_blocks``: residual blocks resample instead (Brock et al. 2019), by averaging and repeating for "conv".
    - ``noise_embedding``: "sinusoidal", or "fourier" with random frequencies of scale ``fourier_scale``.
    - ``skip_rescale``: residual sums are divided by sqrt 2.
    - ``progressive_input``: "residual" adds to the way down, after each halving, the sum after the one before (first
      the input), halved and projected by a convolution.
    - ``checkpointing``: in training, activations inside stages are computed again instead of kept.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        num_classes: int | None = None,
        channels: int = 64,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 2,
        attention: Sequence[int] = (),
        dropout: float = 0.0,
        resampling: str = "conv",
        resample_blocks: bool = False,
        noise_embedding: str = "sinusoidal",
        fourier_scale: float = 16.0,
        skip_rescale: bool = False,
        progressive_input: str = "none",
        checkpointing: bool = False,
        conditions: Shapes | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.encoder = encoder = UNetEncoder(
            event_shape,
            num_classes,
            channels,
            multipliers,
            blocks,
            attention,
            dropout,
            resampling,
            resample_blocks,
            noise_embedding,
            fourier_scale,
            skip_rescale,
            progressive_input,
            checkpointing,
            conditions,
        )
        self.conditions, cross = encoder.embedding.conditions, encoder.embedding.sequence is not None
        options, current = encoder.options, encoder.channels
        conv = CONVOLUTIONS[options.dims]
        self.middle = nn.ModuleList(
            [Stage(options, current, current, any(encoder.attended), cross), Stage(options, current, current, False)]
        )
        self.levels, self.ups = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(multipliers))):
            stages = nn.ModuleList()
            for skip in reversed(encoder.skip_channels[level]):
                outputs = channels * multipliers[level]
                stages.append(Stage(options, current + skip, outputs, encoder.attended[level], encoder.crossed[level]))
                current = outputs
            self.levels.append(stages)
            if not level:
                self.ups.append(nn.Identity())
            elif resample_blocks:
                double = resampler(options.dims, encoder.fir, up=True)
                self.ups.append(ResidualBlock(options, current, current, double))
            else:
                self.ups.append(conv(current, current, 3, padding=1))
        self.filter = resampler(options.dims, encoder.fir, up=True)
        self.norm, self.head = group_norm(current), zero_init(conv(current, event_shape[0], 3, padding=1))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        recompute, resample_blocks = self.encoder.checkpointing, self.encoder.resample_blocks
        skips, embedding, context = self.encoder(x, c_noise, cond)
        h = skips[-1][-1]
        for stage in self.middle:
            h = run(stage, h, embedding, context, recompute=recompute)
        for stages, up in zip(self.levels, self.ups, strict=True):
            level = skips.pop()
            for stage in stages.children():
                h = run(stage, torch.cat([h, level.pop()], dim=1), embedding, context, recompute=recompute)
            if skips:
                h = run(up, h, embedding, recompute=recompute) if resample_blocks else up(self.filter(h))
        return crop(self.head(F.silu(self.norm(h))), x.shape[2:])
