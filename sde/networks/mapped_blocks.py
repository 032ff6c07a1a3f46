"""Blocks of the U-Net with a mapping network: residual blocks and attention, each with adaptive group norm."""

import torch.nn.functional as F
from torch import Tensor, nn

from sde.networks.attention import Context, CrossAttention, attend
from sde.networks.dropout import Dropout
from sde.networks.layers import CONVOLUTIONS, largest_divisor, zero_init

GROUP, HEAD = 32, 64
"""Channels of a group and of a head; there are fewer and larger ones where channels are no multiple."""


def count_of(channels: int, size: int) -> int:
    """How many groups or heads of at least ``size`` channels divide them, or one."""
    return largest_divisor(channels, channels // size)


class AdaptiveGroupNorm(nn.Module):
    """norm(x) (1 + scale) + shift, with (scale, shift) from the embedding and zero at first (Dhariwal and Nichol 2021,
    section 3.1), in groups of 32 channels."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.groups, self.modulation = count_of(channels, GROUP), zero_init(nn.Linear(width, 2 * channels))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding).view(x.shape[0], -1, *[1] * (x.ndim - 2)).chunk(2, dim=1)
        return F.group_norm(x, self.groups, eps=1e-5) * (1 + scale) + shift


class MappedBlock(nn.Module):
    """Two convolutions, each behind adaptive group norm and GELU; zero at first but for the skip."""

    def __init__(self, dims: int, width: int, inputs: int, outputs: int, inside: int, dropout: float) -> None:
        super().__init__()
        conv = CONVOLUTIONS[dims]
        self.norm1, self.conv1 = AdaptiveGroupNorm(width, inputs), conv(inputs, inside, 3, padding=1)
        self.norm2, self.conv2 = AdaptiveGroupNorm(width, inside), zero_init(conv(inside, outputs, 3, padding=1))
        self.dropout = Dropout(dropout)
        self.skip: nn.Module = nn.Identity()
        if inputs != outputs:
            self.skip = conv(inputs, outputs, 1, bias=False)
            nn.init.orthogonal_(self.skip.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.dropout(self.conv1(F.gelu(self.norm1(x, embedding))))
        return self.skip(x) + self.dropout(self.conv2(F.gelu(self.norm2(h, embedding))))


class MappedAttention(nn.Module):
    """Residual self-attention of all positions in heads of 64 channels; zero at first."""

    def __init__(self, dims: int, width: int, channels: int, dropout: float) -> None:
        super().__init__()
        conv = CONVOLUTIONS[dims]
        self.heads, self.norm = count_of(channels, HEAD), AdaptiveGroupNorm(width, channels)
        self.qkv, self.out = conv(channels, 3 * channels, 1), zero_init(conv(channels, channels, 1))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, embedding: Tensor, fused: bool = False) -> Tensor:
        # (B, 3 C, *space) -> three tensors (B, heads, positions, C / heads)
        qkv = self.qkv(self.norm(x, embedding)).reshape(x.shape[0], 3, self.heads, -1, x[0, 0].numel())
        h = attend(*qkv.transpose(-1, -2).unbind(1), fused=fused)
        return x + self.out(self.dropout(h).transpose(-1, -2).reshape(x.shape))


class MappedCrossAttention(nn.Module):
    """Residual attention of all positions to normalized tokens of a sequence; zero at first."""

    def __init__(self, width: int, channels: int, features: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.context_norm = AdaptiveGroupNorm(width, channels), nn.LayerNorm(features)
        self.attention, self.dropout = CrossAttention(channels, features, count_of(channels, HEAD)), Dropout(dropout)

    def forward(self, x: Tensor, embedding: Tensor, context: Context, fused: bool = False) -> Tensor:
        context = Context(self.context_norm(context.tokens), context.mask)
        h = self.attention(self.norm(x, embedding).flatten(2).transpose(1, 2), context, fused)
        return x + self.dropout(h).transpose(1, 2).reshape(x.shape)


class MappedStage(nn.Module):
    """A residual block, then self-attention, and attention to the ``features`` of tokens, where asked for."""

    def __init__(
        self,
        dims: int,
        width: int,
        inputs: int,
        outputs: int,
        inside: int,
        dropout: float,
        attention: bool,
        features: int,
    ) -> None:
        super().__init__()
        self.block = MappedBlock(dims, width, inputs, outputs, inside, dropout)
        self.attention = MappedAttention(dims, width, outputs, dropout) if attention else None
        self.cross = MappedCrossAttention(width, outputs, features, dropout) if features else None

    def forward(self, x: Tensor, embedding: Tensor, context: Context | None = None, fused: bool = False) -> Tensor:
        h = self.block(x, embedding)
        h = h if self.attention is None else self.attention(h, embedding, fused)
        return h if self.cross is None else self.cross(h, embedding, context, fused)


def patches_of(x: Tensor, size: int) -> Tensor:
    """x (B, C, *space) -> (B, C size^axes, *space / size): the positions of a patch, the last axis fastest, become
    channels."""
    dims = x.ndim - 2
    if size == 1:
        return x
    for axis in range(dims):
        x = x.unflatten(2 + 2 * axis, (-1, size))
    return x.permute(0, 1, *range(3, 3 + 2 * dims, 2), *range(2, 2 + 2 * dims, 2)).flatten(1, 1 + dims)


def positions_of(x: Tensor, size: int) -> Tensor:
    """The inverse of ``patches_of``."""
    dims = x.ndim - 2
    if size == 1:
        return x
    x = x.unflatten(1, (-1, *[size] * dims))
    x = x.permute(0, 1, *(i for axis in range(dims) for i in (2 + dims + axis, 2 + axis)))
    for axis in range(dims):
        x = x.flatten(2 + axis, 3 + axis)
    return x
