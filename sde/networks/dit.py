"""The DiT: a transformer over patches of signals, images or volumes (Peebles and Xie 2023)."""

import math
from collections.abc import Sequence
from itertools import islice, zip_longest

from torch import Tensor, nn

from sde.condition.tree import Condition, Shapes
from sde.networks.attention import Context, CrossAttention, attend, may_fuse
from sde.networks.dropout import Dropout
from sde.networks.embedding import Embedding
from sde.networks.encoding import Encoding
from sde.networks.layers import (
    CONVOLUTIONS,
    TRANSPOSED_CONVOLUTIONS,
    check_counts,
    check_input,
    crop,
    pad,
    run,
    split_shape,
    zero_init,
)
from sde.networks.positions import position_embedding


class DiTBlock(nn.Module):
    """Self-attention, then two layers: each x + gate f(norm(x) (1 + scale) + shift), with gate, scale and shift from
    the embedding and zero at first (adaLN-Zero, figure 3). With ``cross``, attention to a context comes between them:
    x + f(norm(x)), whose output is zero at first."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, cross: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.GELU("tanh"), nn.Linear(hidden, width))
        self.dropout = Dropout(dropout)
        for layer in (self.qkv, self.out, *(m for m in self.layers if isinstance(m, nn.Linear))):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.modulation = zero_init(nn.Linear(width, 6 * width))
        self.cross = CrossAttention(width, width, heads) if cross else None

    def forward(self, x: Tensor, embedding: Tensor, context: Context | None = None, fused: bool = False) -> Tensor:
        shift, scale, gate, *second = self.modulation(embedding)[:, None].chunk(6, dim=2)
        x = x + gate * self.dropout(self.attend(self.norm(x) * (1 + scale) + shift, fused))
        if self.cross is not None:
            x = x + self.dropout(self.cross(self.norm(x), context, fused))
        shift, scale, gate = second
        return x + gate * self.dropout(self.layers(self.norm(x) * (1 + scale) + shift))

    def attend(self, x: Tensor, fused: bool = False) -> Tensor:
        """Multi-head self-attention over tokens (B, N, width), without the residual sum."""
        # (B, N, 3 width) -> three tensors (B, heads, N, width / heads)
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        h = attend(q, k, v, fused=fused)
        return self.out(h.transpose(1, 2).flatten(2))


class DiT(nn.Module):
    """forward(x, c_noise, cond) -> a tensor of the shape of x (B, channels, *space); any size, by padding and cropping.

    Patches of ``patch_size`` positions along each axis are tokens of ``width`` features with fixed sine-cosine
    positions. ``depth`` blocks of self-attention in ``heads`` heads and of two layers with ``mlp_ratio * width`` units
    between them take them to an output that starts at zero. DiT-S, B, L and XL are depth 12, 12, 24, 28; width 384,
    768, 1024, 1152; heads 6, 12, 16, 16 (table 1). ``cond`` holds labels below ``num_classes``, -1 for null, and what
    ``conditions`` gives the shapes of: a vector joins the embedding, an image the channels of x, and each block attends
    to the tokens of a sequence (sde.condition), which ``sequence_layers`` of a transformer see first; None is all null.
    With ``activation_checkpointing``, in training, activations inside blocks are computed again instead of kept. In
    training attention is fused, which has first derivatives in reverse mode alone, unless x is differentiated as well.

    Raises ValueError for an event shape without 1 to 3 axes of space, counts below 1, and a width that ``heads`` does
    not divide.
    """

    tokens = True

    def __init__(
        self,
        event_shape: Sequence[int],
        num_classes: int | None = None,
        patch_size: int = 2,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        activation_checkpointing: bool = False,
        sequence_layers: int = 0,
        conditions: Shapes | None = None,
    ) -> None:
        super().__init__()
        self.inputs, space = split_shape(event_shape, "DiT")
        self.dims, self.patch_size = len(space), patch_size
        self.activation_checkpointing = activation_checkpointing
        check_counts(patch_size=patch_size, width=width, depth=depth, heads=heads)
        if not mlp_ratio > 0:
            raise ValueError(f"mlp_ratio = {mlp_ratio}: needs a positive number, as 4")
        if width % heads:
            nearest = (width // heads + 1) * heads
            raise ValueError(f"width = {width} cannot be split into heads = {heads}: needs a multiple, as {nearest}")
        self.num_classes = num_classes
        hidden = max(1, round(mlp_ratio * width))
        self.embedding = Embedding(width, num_classes, conditions, event_shape, sequence_layers=sequence_layers)
        self.conditions, cross = self.embedding.conditions, self.embedding.sequence is not None
        self.stem = CONVOLUTIONS[self.dims](self.inputs + self.embedding.channels, width, patch_size, stride=patch_size)
        self.blocks = nn.ModuleList(DiTBlock(width, heads, hidden, dropout, cross) for _ in range(depth))
        self.copied = depth // 2
        self.decoder = ("norm", "modulation", "head", *(f"blocks.{number}" for number in range(self.copied, depth)))
        self.tap_channels = [width] * self.copied
        self.hint_shape = (width, *(math.ceil(size / patch_size) for size in space))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = zero_init(nn.Linear(width, 2 * width))
        self.head = zero_init(TRANSPOSED_CONVOLUTIONS[self.dims](width, self.inputs, patch_size, stride=patch_size))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        return self.decode(x, c_noise, self.encode(x, c_noise, cond))

    def encode(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None, hint: Tensor | None = None) -> Encoding:
        """The first half of the blocks (sde.networks.encoding), of which each is a tap, or the stem before any."""
        check_input(x, self.inputs, self.dims)
        inputs, embedding, context = self.embedding(x, c_noise, cond)
        h = self.stem(pad(inputs, self.patch_size))
        h = h if hint is None else h + hint
        fused, tokens = may_fuse(self, x), h.flatten(2).transpose(1, 2)
        taps = [tokens + position_embedding(h.shape[2:], tokens.shape[2], x.device).to(x.dtype)]
        for block in islice(self.blocks, self.copied):
            taps.append(run(block, taps[-1], embedding, context, fused, recompute=self.activation_checkpointing))
        return Encoding(taps[1:] or taps, embedding, context)

    def decode(self, x: Tensor, c_noise: Tensor, encoding: Encoding, residuals: Sequence[Tensor] = ()) -> Tensor:
        """The other blocks, the residuals in front of the first ones of them, one each."""
        fused, embedding, context = may_fuse(self, x), encoding.embedding, encoding.context
        tokens = encoding.taps[-1]
        for block, residual in zip_longest(islice(self.blocks, self.copied, None), residuals):
            tokens = tokens if residual is None else tokens + residual
            tokens = run(block, tokens, embedding, context, fused, recompute=self.activation_checkpointing)
        grid = [math.ceil(size / self.patch_size) for size in x.shape[2:]]
        shift, scale = self.modulation(embedding)[:, None].chunk(2, dim=2)
        tokens = self.norm(tokens) * (1 + scale) + shift
        return crop(self.head(tokens.transpose(1, 2).unflatten(2, grid)), x.shape[2:])
