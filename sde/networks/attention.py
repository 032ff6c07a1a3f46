"""Attention: self-attention of positions, and cross-attention to the tokens of a condition."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sde.device import differentiating_forward
from sde.networks.layers import CONVOLUTIONS, BlockOptions, largest_divisor, residual_sum, zero_init


class Context(NamedTuple):
    """What is attended to: ``tokens`` (B, N, width), and the boolean ``mask`` (B, 1, 1, N) of those that are there."""

    tokens: Tensor
    mask: Tensor


class CrossAttention(nn.Module):
    """Multi-head attention of positions (B, N, width) to a context of ``context_width``, without the residual sum; its
    output starts at zero. Tokens have no positions: their order does not matter."""

    def __init__(self, width: int, context_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.kv = nn.Linear(width, width), nn.Linear(context_width, 2 * width)
        self.out = zero_init(nn.Linear(width, width))

    def forward(self, x: Tensor, context: Context, fused: bool = False) -> Tensor:
        q = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(context.tokens).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        h = attend(q, k, v, context.mask, fused=fused)
        return self.out(h.transpose(1, 2).flatten(2))


def heads_of(options: BlockOptions, channels: int) -> int:
    """``num_heads`` of the options, or as many heads of at least ``head_channels`` channels as divide them, or one.
    Raises ValueError where ``num_heads`` does not divide the channels."""
    if options.num_heads:
        if channels % options.num_heads:
            raise ValueError(f"num_heads = {options.num_heads} does not divide {channels} channels: take a divisor")
        return options.num_heads
    return largest_divisor(channels, channels // options.head_channels) if options.head_channels else 1


class SelfAttention(nn.Module):
    """Residual multi-head self-attention over all positions, in ``heads_of`` the channels."""

    def __init__(self, options: BlockOptions, channels: int) -> None:
        super().__init__()
        conv = CONVOLUTIONS[options.dims]
        self.heads = heads_of(options, channels)
        self.norm, self.qkv = options.norm(channels), conv(channels, 3 * channels, 1)
        self.out = zero_init(conv(channels, channels, 1))
        self.rescale = options.rescale

    def forward(self, x: Tensor, fused: bool = False) -> Tensor:
        # (B, 3 C, *space) -> three tensors (B, heads, positions, C / heads)
        qkv = self.qkv(self.norm(x)).view(x.shape[0], 3, self.heads, -1, x[0, 0].numel()).transpose(-1, -2)
        h = attend(*qkv.unbind(1), fused=fused)
        return residual_sum(x, self.out(h.transpose(-1, -2).reshape(x.shape)), self.rescale)


class ContextAttention(nn.Module):
    """Residual attention of all positions to the tokens of a context, in as many heads as ``SelfAttention`` has."""

    def __init__(self, options: BlockOptions, channels: int) -> None:
        super().__init__()
        self.norm = options.norm(channels)
        self.attention = CrossAttention(channels, options.width, heads_of(options, channels))
        self.rescale = options.rescale

    def forward(self, x: Tensor, context: Context, fused: bool = False) -> Tensor:
        h = self.attention(self.norm(x).flatten(2).transpose(1, 2), context, fused)
        return residual_sum(x, h.transpose(1, 2).reshape(x.shape), self.rescale)


def may_fuse(network: nn.Module, x: Tensor) -> bool:
    """Whether ``attend`` may be fused in a network that is called at x: where nothing is differentiated, and in
    training, which differentiates by parameters alone, once. Likelihood and guidance differentiate by x, and losses of
    average velocities forward, by whatever they are told."""
    if differentiating_forward():
        return False
    return not torch.is_grad_enabled() or (network.training and not x.requires_grad)


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, fused: bool, scale: float | None = None
) -> Tensor:
    """softmax(scale q k^T) v of (B, heads, N, width), with scale 1 / sqrt(width) unless told otherwise; ``mask`` is
    True where a key is there.

    ``fused`` kernels save memory and time; without, there are the second and forward derivatives that likelihood and
    guidance ask for, which fused kernels lack.
    """
    if fused:
        return F.scaled_dot_product_attention(q, k, v, mask, scale=scale)
    logits = q @ k.transpose(2, 3) * (q.shape[3] ** -0.5 if scale is None else scale)
    return (logits if mask is None else logits.masked_fill(~mask, -math.inf)).softmax(dim=3) @ v
