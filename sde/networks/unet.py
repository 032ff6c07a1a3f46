"""A U-Net over signals, images or volumes (Ho et al. 2020, appendix B; Dhariwal and Nichol 2021, section 3)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sde.condition import Condition
from sde.networks.embedding import Embedding, zero_init

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm with at most 32 groups, of at least four channels where the number of channels allows it."""
    return nn.GroupNorm(math.gcd(32, channels // 4 if channels % 4 == 0 else channels), channels)


class ResidualBlock(nn.Module):
    """Two convolutions; the embedding scales and shifts between them (adaptive group norm)."""

    def __init__(self, dims: int, inputs: int, outputs: int, width: int, dropout: float) -> None:
        super().__init__()
        conv = CONVOLUTIONS[dims]
        self.norm1, self.conv1 = group_norm(inputs), conv(inputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(width, 2 * outputs)
        self.norm2, self.conv2 = group_norm(outputs), zero_init(conv(outputs, outputs, 3, padding=1))
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Identity() if inputs == outputs else conv(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.modulation(embedding).view(len(x), -1, *[1] * (x.ndim - 2)).chunk(2, dim=1)
        h = F.silu(self.norm2(h) * (1 + scale) + shift)
        return self.skip(x) + self.conv2(self.dropout(h))


class SelfAttention(nn.Module):
    """Residual multi-head self-attention over all positions."""

    def __init__(self, dims: int, channels: int, head_channels: int = 64) -> None:
        super().__init__()
        conv = CONVOLUTIONS[dims]
        self.heads = max(1, channels // head_channels)
        if channels % self.heads:
            raise ValueError(
                f"attention over {channels} channels cannot be split into {self.heads} heads: use a multiple "
                f"of {head_channels}"
            )
        self.norm, self.qkv = group_norm(channels), conv(channels, 3 * channels, 1)
        self.out = zero_init(conv(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        # (B, 3 C, *space) -> three tensors (B, heads, positions, C / heads)
        qkv = self.qkv(self.norm(x)).view(len(x), 3, self.heads, -1, x[0, 0].numel()).transpose(-1, -2)
        h = F.scaled_dot_product_attention(*qkv.unbind(1))
        return x + self.out(h.transpose(-1, -2).reshape(x.shape))


class Stage(nn.Module):
    """A residual block, then self-attention where asked for."""

    def __init__(self, dims: int, inputs: int, outputs: int, width: int, dropout: float, attention: bool) -> None:
        super().__init__()
        self.block = ResidualBlock(dims, inputs, outputs, width, dropout)
        self.attention = SelfAttention(dims, outputs) if attention else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return self.attention(self.block(x, embedding))


class UNetEncoder(nn.Module):
    """The way down, which U-Net and classifier share: at each level ``blocks`` stages, then half the resolution.

    ``event_shape`` is (channels, *space) with one to three axes of space; ``multipliers`` gives the channels of each
    level in units of ``channels``, ``attention`` the resolutions (sizes of the longest axis) that get self-attention.
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
    ) -> None:
        super().__init__()
        inputs, *space = event_shape
        self.dims, self.factor = len(space), 2 ** (len(multipliers) - 1)
        if self.dims not in CONVOLUTIONS:
            raise ValueError(
                f"a U-Net takes items of shape (channels, *space) with 1 to 3 axes of space, not "
                f"{tuple(event_shape)}: use network mlp for vectors"
            )
        sizes = [math.ceil(max(space) / self.factor) * self.factor >> level for level in range(len(multipliers))]
        unknown = set(attention) - set(sizes)
        if unknown:
            raise ValueError(
                f"attention at resolution {min(unknown)}: the resolutions are {', '.join(map(str, sizes))}"
            )
        self.width = 4 * channels
        self.embedding = Embedding(self.width, num_classes)
        conv = CONVOLUTIONS[self.dims]
        self.stem = conv(inputs, channels, 3, padding=1)
        self.levels, self.downs = nn.ModuleList(), nn.ModuleList()
        self.skip_channels = [[channels]]
        self.attended = [size in attention for size in sizes]
        current = channels
        for level, multiplier in enumerate(multipliers):
            stages = nn.ModuleList()
            for _ in range(blocks):
                stages.append(
                    Stage(self.dims, current, channels * multiplier, self.width, dropout, self.attended[level])
                )
                current = channels * multiplier
                self.skip_channels[-1].append(current)
            self.levels.append(stages)
            if level < len(multipliers) - 1:
                self.downs.append(conv(current, current, 3, stride=2, padding=1))
                self.skip_channels.append([current])
        self.channels = current

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> tuple[list[list[Tensor]], Tensor]:
        """x (B, *event), c_noise (B,) -> the activations of each level, and the embedding (B, width)."""
        embedding = self.embedding(c_noise, cond)
        h = self.stem(pad(x, self.factor))
        skips = [[h]]
        for level, stages in enumerate(self.levels):
            for stage in stages:
                h = stage(h, embedding)
                skips[-1].append(h)
            if level < len(self.downs):
                h = self.downs[level](h)
                skips.append([h])
        return skips, embedding


def pad(x: Tensor, factor: int) -> Tensor:
    """x with each axis of space zero-padded at its end to a multiple of ``factor``."""
    missing = [-size % factor for size in x.shape[2:]]
    return F.pad(x, [amount for m in reversed(missing) for amount in (0, m)]) if any(missing) else x


class UNet(nn.Module):
    """forward(x, c_noise, cond) -> a tensor of the shape of x (B, channels, *space); any size, by padding and cropping.

    A residual U-Net with adaptive group norm from the noise and class embedding, self-attention at chosen resolutions
    and in the middle, and an output that starts at zero. ``cond`` are labels (B,), -1 for null; None is all null.
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
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.encoder = encoder = UNetEncoder(
            event_shape, num_classes, channels, multipliers, blocks, attention, dropout
        )
        dims, width, current = encoder.dims, encoder.width, encoder.channels
        conv = CONVOLUTIONS[dims]
        self.middle = nn.ModuleList(
            [
                Stage(dims, current, current, width, dropout, any(encoder.attended)),
                Stage(dims, current, current, width, dropout, False),
            ]
        )
        self.levels, self.ups = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(multipliers))):
            stages = nn.ModuleList()
            for skip in reversed(encoder.skip_channels[level]):
                stages.append(
                    Stage(dims, current + skip, channels * multipliers[level], width, dropout, encoder.attended[level])
                )
                current = channels * multipliers[level]
            self.levels.append(stages)
            self.ups.append(conv(current, current, 3, padding=1) if level else nn.Identity())
        self.norm, self.head = group_norm(current), zero_init(conv(current, event_shape[0], 3, padding=1))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        skips, embedding = self.encoder(x, c_noise, cond)
        h = skips[-1][-1]
        for stage in self.middle:
            h = stage(h, embedding)
        for index, (stages, up) in enumerate(zip(self.levels, self.ups, strict=True)):
            level = skips.pop()
            for stage in stages:
                h = stage(torch.cat([h, level.pop()], dim=1), embedding)
            if index < len(self.levels) - 1:
                h = up(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        h = self.head(F.silu(self.norm(h)))
        return h[(..., *(slice(size) for size in x.shape[2:]))]
