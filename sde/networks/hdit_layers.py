"""The layers of an hourglass transformer: attention, feed-forward layers, merging and splitting of tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sde.networks.attention import Context, CrossAttention, attend
from sde.networks.dropout import Dropout
from sde.networks.hdit_levels import Level
from sde.networks.layers import zero_init
from sde.networks.mapped_embedding import EPS, GEGLU, rms_norm
from sde.networks.rotary import AxialRotary, rotate
from sde.networks.windows import Axis, local_attention


class AdaRMSNorm(nn.Module):
    """rms_norm(x) (1 + scale), with the scale from the embedding and zero at first; x (B, *grid, width)."""

    def __init__(self, width: int, embedding_width: int) -> None:
        super().__init__()
        self.modulation = zero_init(nn.Linear(embedding_width, width, bias=False))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale = self.modulation(embedding)
        return rms_norm(x, 1 + scale.view(x.shape[0], *[1] * (x.ndim - 2), -1))


class CosineAttention(nn.Module):
    """Attention by cosine similarity, without the residual sum: the logits of a head are scale cos(q, k), with learned
    scale, which starts at 10 (Crowson et al. 2024, section 4.2), and rotary positions."""

    def __init__(self, width: int, head_width: int, dims: int) -> None:
        super().__init__()
        self.head_width, heads = head_width, width // head_width
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), zero_init(nn.Linear(width, width, bias=False))
        self.scale = nn.Parameter(torch.full((heads,), 10.0))
        self.rotary = AxialRotary(head_width, heads, dims)

    def forward(self, x: Tensor, positions: Tensor, axes: tuple[Axis, ...] | None, fused: bool) -> Tensor:
        """x (B, *grid, width); ``axes`` say what each token attends to, None for all."""
        # (B, *grid, 3 width) -> three tensors (B, heads, *grid, head_width)
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, self.head_width)).movedim((-3, -2), (0, 2)).unbind(0)
        cos, sin = self.rotary(positions)
        q, k = (rotate(y * (y.square().sum(-1, keepdim=True) + EPS).rsqrt(), cos, sin) for y in (q, k))
        q = q * self.scale.view(-1, *[1] * (x.ndim - 1))
        q, k = q.to(v.dtype), k.to(v.dtype)
        if axes is None:
            h = attend(*(y.flatten(2, -2) for y in (q, k, v)), fused=fused, scale=1.0).view(v.shape)
        else:
            h = local_attention(q, k, v, axes, fused=fused)
        return self.out(h.movedim(1, -2).flatten(-2))


class HDiTLayer(nn.Module):
    """x + attention(norm(x)), where the level has attention, then x + GEGLU(norm(x)), each zero at first; between them,
    with ``features`` of the tokens of a sequence, attention to those."""

    def __init__(self, level: Level, embedding_width: int, dims: int, features: int) -> None:
        super().__init__()
        width, attends = level.width, level.attention != "none"
        self.attention_norm = AdaRMSNorm(width, embedding_width) if attends else None
        self.attention = CosineAttention(width, level.head_width, dims) if attends else None
        self.cross_norm = AdaRMSNorm(width, embedding_width) if features else None
        heads = level.heads if attends else 1
        self.cross = CrossAttention(width, features, heads) if features else None
        self.norm, self.layers = AdaRMSNorm(width, embedding_width), GEGLU(width, level.hidden, level.dropout)
        self.dropout = Dropout(level.dropout)

    def forward(
        self,
        x: Tensor,
        embedding: Tensor,
        positions: Tensor,
        axes: tuple[Axis, ...] | None,
        context: Context | None = None,
        fused: bool = False,
    ) -> Tensor:
        """x (B, *grid, width) and its positions (*grid, axes)."""
        if self.attention is not None and self.attention_norm is not None:
            x = x + self.dropout(self.attention(self.attention_norm(x, embedding), positions, axes, fused))
        if self.cross is not None and self.cross_norm is not None:
            tokens = self.cross_norm(x, embedding).flatten(1, -2)
            x = x + self.dropout(self.cross(tokens, context, fused)).view(x.shape)
        return x + self.layers(self.norm(x, embedding))


class TokenMerge(nn.Module):
    """Tokens (B, *grid, inputs) in blocks of ``sizes`` -> one token for each, linearly: (B, *grid / sizes, outputs)."""

    def __init__(self, inputs: int, outputs: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes, count = sizes, torch.Size(sizes).numel()
        self.layer = nn.Linear(count * inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        dims = len(self.sizes)
        for i, size in enumerate(self.sizes):
            x = x.unflatten(1 + 2 * i, (-1, size))
        x = x.permute(0, *range(1, 2 * dims, 2), *range(2, 2 * dims + 1, 2), -1)
        return self.layer(x.flatten(dims + 1))


class TokenSplit(nn.Module):
    """Tokens (B, *grid, inputs) -> blocks of ``sizes``, linearly: (B, *sizes grid, outputs)."""

    def __init__(self, inputs: int, outputs: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes, self.outputs, count = sizes, outputs, torch.Size(sizes).numel()
        self.layer = nn.Linear(inputs, count * outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        dims = len(self.sizes)
        x = self.layer(x).unflatten(-1, (*self.sizes, self.outputs))
        x = x.permute(0, *(i for axis in range(dims) for i in (1 + axis, 1 + dims + axis)), -1)
        for axis in range(dims):
            x = x.flatten(1 + axis, 2 + axis)
        return x


class SkipSplit(nn.Module):
    """skip + share (split(x) - skip), with a learned share, which starts at a half (Crowson et al. 2024, section
    4.1)."""

    def __init__(self, inputs: int, outputs: int, dims: int) -> None:
        super().__init__()
        self.split, self.share = TokenSplit(inputs, outputs, [2] * dims), nn.Parameter(torch.full((1,), 0.5))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return torch.lerp(skip, self.split(x), self.share.to(skip.dtype))
