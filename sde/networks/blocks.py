"""What a U-Net is built of: residual blocks with adaptive group norm, and self-attention."""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from sde.networks.conditions import Context, CrossAttention
from sde.networks.dropout import Dropout
from sde.networks.layers import CONVOLUTIONS, zero_init


def groups_of(channels: int) -> int:
    """Groups to normalise channels in: a power of two up to 32, of at least four channels each where their number is a
    multiple of four; where this gives one, the largest divisor up to 32 that leaves a group two channels or more."""
    groups = math.gcd(32, channels // 4 if channels % 4 == 0 else channels)
    return groups if groups > 1 else largest_divisor(channels, min(32, channels // 2))


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of a number that is at most ``limit``, and 1 where there is none."""
    return next((divisor for divisor in range(limit, 1, -1) if number % divisor == 0), 1)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm with ``groups_of`` the channels."""
    return nn.GroupNorm(groups_of(channels), channels)


def residual_sum(x: Tensor, branch: Tensor, rescale: bool) -> Tensor:
    """x + branch; with ``rescale`` over sqrt 2, which keeps unit variance (Karras et al. 2018; Song et al. 2021, H)."""
    total = x + branch
    return total * math.sqrt(0.5) if rescale else total


@dataclass(frozen=True)
class BlockOptions:
    """What the blocks of a U-Net share: axes of space, width of the embedding, dropout, rescaled residual sums."""

    dims: int
    width: int
    dropout: float
    rescale: bool


class ResidualBlock(nn.Module):
    """Two convolutions; the embedding scales and shifts between them (adaptive group norm).

    ``resample`` halves or doubles the resolution inside the block, on both of its ways (Brock et al. 2019, figure 15).
    """

    def __init__(self, options: BlockOptions, inputs: int, outputs: int, resample: nn.Module | None = None) -> None:
        super().__init__()
        conv = CONVOLUTIONS[options.dims]
        self.norm1, self.conv1 = group_norm(inputs), conv(inputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(options.width, 2 * outputs)
        self.norm2, self.conv2 = group_norm(outputs), zero_init(conv(outputs, outputs, 3, padding=1))
        self.dropout = Dropout(options.dropout)
        self.skip = nn.Identity() if inputs == outputs else conv(inputs, outputs, 1)
        self.rescale, self.resample = options.rescale, resample or nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(self.resample(F.silu(self.norm1(x))))
        scale, shift = self.modulation(embedding).view(len(x), -1, *[1] * (x.ndim - 2)).chunk(2, dim=1)
        h = F.silu(self.norm2(h) * (1 + scale) + shift)
        return residual_sum(self.skip(self.resample(x)), self.conv2(self.dropout(h)), self.rescale)


class SelfAttention(nn.Module):
    """Residual multi-head self-attention over all positions, in as many heads of at least ``head_channels`` channels
    as divide them, or one."""

    def __init__(self, options: BlockOptions, channels: int, head_channels: int = 64) -> None:
        super().__init__()
        conv = CONVOLUTIONS[options.dims]
        self.heads = largest_divisor(channels, channels // head_channels)
        self.norm, self.qkv = group_norm(channels), conv(channels, 3 * channels, 1)
        self.out = zero_init(conv(channels, channels, 1))
        self.rescale = options.rescale

    def forward(self, x: Tensor) -> Tensor:
        # (B, 3 C, *space) -> three tensors (B, heads, positions, C / heads)
        qkv = self.qkv(self.norm(x)).view(len(x), 3, self.heads, -1, x[0, 0].numel()).transpose(-1, -2)
        h = F.scaled_dot_product_attention(*qkv.unbind(1))
        return residual_sum(x, self.out(h.transpose(-1, -2).reshape(x.shape)), self.rescale)


class ContextAttention(nn.Module):
    """Residual attention of all positions to the tokens of a context, in as many heads as ``SelfAttention`` has."""

    def __init__(self, options: BlockOptions, channels: int, head_channels: int = 64) -> None:
        super().__init__()
        heads = largest_divisor(channels, channels // head_channels)
        self.norm, self.attention = group_norm(channels), CrossAttention(channels, options.width, heads)
        self.rescale = options.rescale

    def forward(self, x: Tensor, context: Context) -> Tensor:
        h = self.attention(self.norm(x).flatten(2).transpose(1, 2), context)
        return residual_sum(x, h.transpose(1, 2).reshape(x.shape), self.rescale)


class Stage(nn.Module):
    """A residual block, then self-attention and attention to a context where asked for."""

    def __init__(self, options: BlockOptions, inputs: int, outputs: int, attention: bool, cross: bool = False) -> None:
        super().__init__()
        self.block = ResidualBlock(options, inputs, outputs)
        self.attention = SelfAttention(options, outputs) if attention else nn.Identity()
        self.cross = ContextAttention(options, outputs) if cross else None

    def forward(self, x: Tensor, embedding: Tensor, context: Context | None = None) -> Tensor:
        h = self.attention(self.block(x, embedding))
        return h if self.cross is None else self.cross(h, context)
