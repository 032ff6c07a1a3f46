"""Mapped embeddings: what a network knows besides x is summed, then taken to a style by a mapping network (Karras et
al. 2019, section 2, where it maps latents)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sde.condition.tree import CONDITION_NOISE, ConditionLike, Shapes, as_tree
from sde.networks.attention import Context
from sde.networks.dropout import Dropout
from sde.networks.embedding import (
    TOLD,
    ClassEmbedding,
    ImageInput,
    complete_tree,
    fourier_frequencies,
    split_further,
)
from sde.networks.layers import check_choice, zero_init
from sde.networks.mapping import split_augmentation
from sde.networks.sequence import SequenceTransformer, check_layers, transformed

EPS = 1e-6
"""What is added to mean squares in RMS norm, and to squared lengths in cosine similarities."""


def rms_norm(x: Tensor, scale: Tensor) -> Tensor:
    """x scale / sqrt(mean(x^2) + EPS), the mean over the last axis (Zhang and Sennrich 2019, eq. 4)."""
    return x * (scale * (x.square().mean(-1, keepdim=True) + EPS).rsqrt())


class RMSNorm(nn.Module):
    """RMS norm over features, the last axis, with a learned scale of each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.scale)


class GEGLU(nn.Module):
    """Two layers with a gated hidden one: down(u gelu(v)) with (u, v) = up(x) (Shazeer 2020, eq. 6); without biases,
    and zero at first."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * hidden, bias=False), zero_init(nn.Linear(hidden, width, bias=False))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.up(x).chunk(2, dim=-1)
        return self.down(self.dropout(value * F.gelu(gate)))


class MappingBlock(nn.Module):
    """x + GEGLU(norm(x))."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.layers = RMSNorm(width), GEGLU(width, hidden, dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(self.norm(x))


def mapping_network(width: int, depth: int, hidden: int, dropout: float) -> nn.Sequential:
    """Norm, ``depth`` blocks, norm, of embeddings (B, width) (Crowson et al. 2024, appendix)."""
    return nn.Sequential(RMSNorm(width), *(MappingBlock(width, hidden, dropout) for _ in range(depth)), RMSNorm(width))


class FourierFeatures(nn.Module):
    """Numbers (B,) or (B, inputs) -> (B, width): cosines, then sines, of 2 pi w x with normal w, which are drawn once
    and not trained (Tancik et al. 2020, eq. 5)."""

    frequencies: Tensor

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"mapping_width = {width}: needs an even number, for as many cosines as sines")
        self.register_buffer("frequencies", fourier_frequencies(width // 2 * inputs, 1.0).view(-1, inputs))

    def forward(self, x: Tensor) -> Tensor:
        # Not a product of matrices, which autocast would round.
        angle = (x.reshape(x.shape[0], 1, -1) * self.frequencies).sum(2)
        return torch.cat([angle.cos(), angle.sin()], dim=1)


class VectorInput(nn.Module):
    """Numbers (B, *shape) -> (B, width), linearly; a row with a NaN gets a learned embedding, which starts at zero."""

    def __init__(self, shape: Sequence[int], width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(math.prod(shape), width, bias=False)
        self.null = nn.Parameter(torch.zeros(width))

    def forward(self, vector: Tensor) -> Tensor:
        flat = vector.flatten(1)
        null = flat.isnan().any(1, keepdim=True)
        return torch.where(null, self.null, self.layer(flat.masked_fill(null, 0)))


class TokenInput(nn.Module):
    """A sequence (B, L, features) -> the context of its tokens as they are, and what it adds to the embedding, (B,
    width) or None; tokens with a NaN are not there. Where none is, there is a learned one, which starts at zero.
    ``layers`` of a transformer add to the tokens, as in ``SequenceTokens``."""

    def __init__(self, features: int, width: int, layers: int = 0) -> None:
        super().__init__()
        check_layers(layers)
        self.null = nn.Parameter(torch.zeros(features))
        self.transformer = SequenceTransformer(features, layers, width) if layers else None

    def forward(self, sequence: Tensor) -> tuple[Context, Tensor | None]:
        absent = sequence.isnan().any(2)
        tokens = sequence.masked_fill(absent.unsqueeze(2), 0)
        tokens = torch.cat([self.null.expand(sequence.shape[0], 1, -1), tokens], 1)
        mask = torch.cat([absent.all(1, keepdim=True), ~absent], 1)
        return transformed(Context(tokens, mask.view(mask.shape[0], 1, 1, -1)), self.transformer)


class MappedEmbedding(nn.Module):
    """mapping(noise(c_noise) + augment(augmentation) + class + vector), (B, width).

    ``noise`` takes c_noise (B,), and ``augment``, where there is one, the ``augment_dim`` numbers that say how an item
    was augmented (Karras et al. 2022, appendix F.2), zero for one that was not. ``conditions`` are as Embedding takes
    them; an image joins the channels of x, ``channels`` more, and tokens of a sequence are attended to, which
    ``sequence_layers`` of a transformer see first. ``further`` is as in Embedding, and joins the sum.
    """

    further: nn.Module | None

    def __init__(
        self,
        width: int,
        num_classes: int | None,
        conditions: Shapes | None,
        event_shape: Sequence[int],
        noise: nn.Module,
        augment: nn.Module | None,
        augment_dim: int,
        mapping: nn.Module,
        sequence_layers: int = 0,
    ) -> None:
        super().__init__()
        self.num_classes, self.augment_dim, self.width, self.further = num_classes, augment_dim, width, None
        self.noise, self.augment, self.mapping = noise, augment, mapping
        self.label = ClassEmbedding(num_classes, width) if num_classes else None
        self.conditions = shapes = {kind: tuple(shape) for kind, shape in (conditions or {}).items()}
        for kind in shapes:
            check_choice("conditions", kind, TOLD)
        self.vector = VectorInput(shapes["vector"], width) if "vector" in shapes else None
        told = CONDITION_NOISE in shapes
        self.condition_noise = VectorInput(shapes[CONDITION_NOISE], width) if told else None
        self.image = ImageInput(shapes["image"], event_shape[1:]) if "image" in shapes else None
        self.channels = shapes["image"][0] if self.image else 0
        self.features = shapes["sequence"][1] if "sequence" in shapes else 0
        self.sequence = TokenInput(self.features, width, sequence_layers) if self.features else None

    def forward(
        self, x: Tensor, c_noise: Tensor, cond: ConditionLike | None = None
    ) -> tuple[Tensor, Tensor, Context | None]:
        """x with the image in further channels, the embedding (B, width), and the tokens to attend to.

        ``cond`` may have an ``augmentation`` beside the kinds that the network was built for, zero unless it has; None
        is all null. Raises ValueError for others, as ``complete_tree`` and ``split_augmentation`` do.
        """
        c_noise, further = split_further(c_noise)
        rest, augmentation = split_augmentation(as_tree(cond), self.augment_dim)
        tree = complete_tree(rest, x, self.num_classes, self.conditions)
        total = self.noise(c_noise)
        if self.further is not None and further is not None:
            total = total + self.further(further)
        if self.augment is not None:
            told = x.new_zeros(x.shape[0], self.augment_dim) if augmentation is None else augmentation.to(x.dtype)
            total = total + self.augment(told)
        if self.label is not None:
            total = total + self.label(tree["labels"])
        if self.vector is not None:
            total = total + self.vector(tree["vector"].to(x.dtype))
        if self.condition_noise is not None:
            total = total + self.condition_noise(tree[CONDITION_NOISE].to(x.dtype))
        if self.image is not None:
            x = self.image(x, tree["image"].to(x.dtype))
        context = None
        if self.sequence is not None:
            context, pooled = self.sequence(tree["sequence"].to(x.dtype))
            total = total if pooled is None else total + pooled
        return x, self.mapping(total), context
