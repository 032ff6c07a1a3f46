"""What networks make of conditions that are numbers: embeddings of vectors, images beside x, tokens to attend to.

In each, a learned value stands for null, decided row by row.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sde.networks.layers import attend, zero_init


class VectorEmbedding(nn.Module):
    """Numbers (B, *shape) -> (B, width) by two layers; a row with a NaN gets a learned embedding."""

    def __init__(self, shape: Sequence[int], width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(math.prod(shape), width), nn.SiLU(), nn.Linear(width, width))
        self.null = nn.Parameter(torch.randn(width))

    def forward(self, vector: Tensor) -> Tensor:
        flat = vector.flatten(1)
        null = flat.isnan().any(1, keepdim=True)
        return torch.where(null, self.null, self.layers(flat.masked_fill(null, 0)))


def repeat_to(image: Tensor, space: Sequence[int]) -> Tensor:
    """An image (B, C, *smaller), each entry repeated along each axis to fill ``space``: (B, C, *space). Raises
    ValueError where an axis is no multiple."""
    smaller = image.shape[2:]
    if len(smaller) != len(space) or any(size % small for size, small in zip(space, smaller, strict=True)):
        raise ValueError(
            f"a condition image of size {'x'.join(map(str, smaller))} does not fit items of size "
            f"{'x'.join(map(str, space))}: needs as many axes, with sizes that divide theirs"
        )
    for axis, (size, small) in enumerate(zip(space, smaller, strict=True), 2):
        image = image.repeat_interleave(size // small, axis)
    return image


class ImageInput(nn.Module):
    """x (B, C, *space) and an image (B, channels, *smaller) -> (B, C + channels, *space), by ``repeat_to``; a row whose
    image has a NaN gets a learned constant image. ``space`` is that of the data."""

    def __init__(self, shape: Sequence[int], space: Sequence[int]) -> None:
        super().__init__()
        repeat_to(torch.empty(0, *shape, device="meta"), space)
        self.null = nn.Parameter(torch.zeros(shape[0]))

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        null = image.flatten(1).isnan().any(1).view(-1, *[1] * (image.ndim - 1))
        image = torch.where(null, self.null.view(-1, *[1] * (image.ndim - 2)), image)
        return torch.cat([x, repeat_to(image, x.shape[2:])], 1)


class Context(NamedTuple):
    """What is attended to: ``tokens`` (B, N, width), and the boolean ``mask`` (B, 1, 1, N) of those that are there."""

    tokens: Tensor
    mask: Tensor


class SequenceTokens(nn.Module):
    """A sequence (B, L, features) -> the context of its tokens behind a learned one, which is all there is of a null
    sequence. Tokens with a NaN are not there, so that shorter sequences are filled up with NaN."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(features, width)
        self.null = nn.Parameter(torch.randn(width))

    def forward(self, sequence: Tensor) -> Context:
        absent = sequence.isnan().any(2)
        tokens = self.layer(sequence.masked_fill(absent.unsqueeze(2), 0))
        tokens = torch.cat([self.null.expand(len(sequence), 1, -1), tokens], 1)
        mask = torch.cat([absent.new_zeros(len(sequence), 1), absent], 1).logical_not()
        return Context(tokens, mask.view(len(mask), 1, 1, -1))


class CrossAttention(nn.Module):
    """Multi-head attention of positions (B, N, width) to a context of ``context_width``, without the residual sum; its
    output starts at zero. Tokens have no positions: their order does not matter."""

    def __init__(self, width: int, context_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.kv = nn.Linear(width, width), nn.Linear(context_width, 2 * width)
        self.out = zero_init(nn.Linear(width, width))

    def forward(self, x: Tensor, context: Context) -> Tensor:
        q = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(context.tokens).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        h = attend(q, k, v, context.mask, fused=self.training or not torch.is_grad_enabled())
        return self.out(h.transpose(1, 2).flatten(2))
