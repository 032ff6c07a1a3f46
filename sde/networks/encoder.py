"""The way down of a U-Net, which the denoiser and the classifier share."""

import math
import warnings
from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from sde.condition import Condition, Shapes
from sde.networks.blocks import BlockOptions, ResidualBlock, Stage, groups_of, residual_sum
from sde.networks.conditions import Context
from sde.networks.embedding import Embedding
from sde.networks.layers import CONVOLUTIONS, check_choice, check_counts, check_input, pad, run, split_shape
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
                f"channels = {channels} can be normalised in one group only: a multiple of 8 suits group norm better",
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
