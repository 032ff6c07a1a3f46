"""Sequences as networks see them: tokens to attend to, and a small transformer over them, trained with the rest."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sde.networks.attention import Context, attend
from sde.networks.layers import zero_init
from sde.networks.positions import position_embedding

HEAD_WIDTH = 64
"""Features of an attention head of the transformer, at least."""


class SequenceLayer(nn.Module):
    """Self-attention over tokens, then two layers, each x + f(norm(x)) (Vaswani et al. 2017, section 3.1, with norms in
    front)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        # Tokens are few, and derivatives of every kind are asked of what is trained.
        h = attend(q, k, v, mask, fused=False)
        x = x + self.out(h.transpose(1, 2).flatten(2))
        return x + self.layers(x)


class SequenceTransformer(nn.Module):
    """A context -> what is added to its tokens (B, N, width), and to the embedding (B, embedding_width), which follows
    from the first token; both are zero at first. Tokens get sines and cosines of their places: their order counts."""

    def __init__(self, width: int, layers: int, embedding_width: int) -> None:
        super().__init__()
        heads = next(h for h in range(max(1, width // HEAD_WIDTH), 0, -1) if width % h == 0)
        self.layers = nn.ModuleList(SequenceLayer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.out, self.pooled = zero_init(nn.Linear(width, width)), zero_init(nn.Linear(width, embedding_width))

    def forward(self, context: Context) -> tuple[Tensor, Tensor]:
        x, mask = context
        x = x + position_embedding((x.shape[1],), x.shape[2], x.device).to(x.dtype)
        for layer in self.layers:
            x = layer(x, mask)
        x = self.norm(x)
        return self.out(x), self.pooled(x[:, 0])


def check_layers(layers: int) -> None:
    """Raise ValueError for a number of layers below 0."""
    if layers < 0:
        raise ValueError(f"sequence_layers = {layers}: needs a number of layers, or 0 for none")


def transformed(context: Context, transformer: SequenceTransformer | None) -> tuple[Context, Tensor | None]:
    """The context with what a transformer adds to its tokens, and what it adds to the embedding; None without one."""
    if transformer is None:
        return context, None
    more, pooled = transformer(context)
    return Context(context.tokens + more, context.mask), pooled


class SequenceTokens(nn.Module):
    """A sequence (B, L, features) -> the context of its tokens behind a learned one, which is all there is of a null
    sequence, and what it adds to the embedding (B, width), or None. Tokens with a NaN are not there, so that shorter
    sequences are filled up with NaN. Without ``layers`` of a transformer the order of tokens does not matter."""

    def __init__(self, features: int, width: int, layers: int = 0) -> None:
        super().__init__()
        check_layers(layers)
        self.layer = nn.Linear(features, width)
        self.null = nn.Parameter(torch.randn(width))
        self.transformer = SequenceTransformer(width, layers, width) if layers else None

    def forward(self, sequence: Tensor) -> tuple[Context, Tensor | None]:
        absent = sequence.isnan().any(2)
        tokens = self.layer(sequence.masked_fill(absent.unsqueeze(2), 0))
        tokens = torch.cat([self.null.expand(sequence.shape[0], 1, -1), tokens], 1)
        mask = F.pad(~absent, (1, 0), value=True).view(absent.shape[0], 1, 1, -1)
        return transformed(Context(tokens, mask), self.transformer)
