"""Linear attention, full attention with learned keys and values, and the blocks of a U-Net that they stand in."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sde.networks.attention import Context, ContextAttention, attend
from sde.networks.dropout import Dropout
from sde.networks.layers import CONVOLUTIONS, BlockOptions

MEMORY = 4


class ChannelRMSNorm(nn.Module):
    """x / sqrt(mean of x^2 over channels) times a learned scale per channel (Zhang and Sennrich 2019), at each
    position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, *space)."""
        scale = self.scale.view(-1, *[1] * (x.ndim - 2))
        return F.normalize(x, dim=1) * scale * len(self.scale) ** 0.5


class MemoryAttention(nn.Module):
    """Residual multi-head attention of all positions to themselves and to MEMORY learned keys and values."""

    def __init__(self, dims: int, channels: int, heads: int, head_channels: int) -> None:
        super().__init__()
        conv, width = CONVOLUTIONS[dims], heads * head_channels
        self.heads = heads
        self.norm, self.qkv = ChannelRMSNorm(channels), conv(channels, 3 * width, 1, bias=False)
        self.memory = nn.Parameter(torch.randn(2, heads, MEMORY, head_channels))
        self.out = conv(width, channels, 1)

    def forward(self, x: Tensor, fused: bool = False) -> Tensor:
        # (B, 3 width, *space) -> three tensors (B, heads, positions, head_channels)
        q, k, v = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1)).transpose(3, 4).unbind(1)
        k, v = (torch.cat([m.expand(x.shape[0], -1, -1, -1), y], 2) for m, y in zip(self.memory, (k, v), strict=True))
        h = attend(q, k, v, fused=fused).transpose(2, 3)
        return x + self.out(h.reshape(x.shape[0], -1, *x.shape[2:]))


class LinearAttention(nn.Module):
    """Residual attention whose cost is linear in the positions (Shen et al. 2021): v softmax(k)^T softmax(q) / sqrt(n),
    over positions for k, with MEMORY learned ones, and over the n channels of a head for q."""

    def __init__(self, dims: int, channels: int, heads: int, head_channels: int) -> None:
        super().__init__()
        conv, width = CONVOLUTIONS[dims], heads * head_channels
        self.heads = heads
        self.norm, self.qkv = ChannelRMSNorm(channels), conv(channels, 3 * width, 1, bias=False)
        self.memory = nn.Parameter(torch.randn(2, heads, head_channels, MEMORY))
        self.out, self.out_norm = conv(width, channels, 1), ChannelRMSNorm(channels)

    def forward(self, x: Tensor, fused: bool = False) -> Tensor:
        # (B, 3 width, *space) -> three tensors (B, heads, head_channels, positions)
        q, k, v = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1)).unbind(1)
        k, v = (torch.cat([m.expand(x.shape[0], -1, -1, -1), y], 3) for m, y in zip(self.memory, (k, v), strict=True))
        context = v @ k.softmax(3).transpose(2, 3)
        h = context @ (q.softmax(2) * q.shape[2] ** -0.5)
        return x + self.out_norm(self.out(h.reshape(x.shape[0], -1, *x.shape[2:])))


class ModulatedBlock(nn.Module):
    """x + two convolutions, each followed by RMS norm and SiLU; the embedding scales and shifts the first norm."""

    def __init__(self, options: BlockOptions, inputs: int, outputs: int) -> None:
        super().__init__()
        conv = CONVOLUTIONS[options.dims]
        self.modulation = nn.Linear(options.width, 2 * outputs)
        self.conv1, self.norm1 = conv(inputs, outputs, 3, padding=1), options.norm(outputs)
        self.conv2, self.norm2 = conv(outputs, outputs, 3, padding=1), options.norm(outputs)
        self.dropout = Dropout(options.dropout)
        self.skip = nn.Identity() if inputs == outputs else conv(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding).view(x.shape[0], -1, *[1] * (x.ndim - 2)).chunk(2, dim=1)
        h = F.silu(self.norm1(self.conv1(x)) * (1 + scale) + shift)
        return F.silu(self.norm2(self.conv2(self.dropout(h)))) + self.skip(x)


class AttendedBlock(nn.Module):
    """A block, then attention, full or linear, and attention to a context where asked for."""

    def __init__(
        self, options: BlockOptions, inputs: int, outputs: int, heads: int, head_channels: int, full: bool, cross: bool
    ) -> None:
        super().__init__()
        self.block = ModulatedBlock(options, inputs, outputs)
        self.attention: LinearAttention | MemoryAttention
        self.attention = (MemoryAttention if full else LinearAttention)(options.dims, outputs, heads, head_channels)
        self.cross = ContextAttention(options, outputs) if cross else None

    def forward(self, x: Tensor, embedding: Tensor, context: Context | None = None, fused: bool = False) -> Tensor:
        h = self.attention(self.block(x, embedding), fused)
        return h if self.cross is None else self.cross(h, context, fused)
