"""Embeddings of what networks are told besides x: the noise level, and conditions.

In each condition a learned value stands for null, decided row by row.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sde.condition.tree import (
    CONDITION_NOISE,
    CONTROL,
    FEATURES,
    BoundCondition,
    Condition,
    ConditionLike,
    Shapes,
    as_tree,
    check_kinds,
    null_tree,
)
from sde.networks.attention import Context
from sde.networks.layers import check_choice
from sde.networks.sequence import SequenceTokens

TOLD = tuple(kind for kind in FEATURES if kind != CONTROL)
"""The kinds of conditions beside labels that a network itself is told; a control comes with a ControlNet."""


class VectorEmbedding(nn.Module):
    """Numbers (B, *shape) -> (B, width) by two layers; a row with a NaN gets a learned embedding. Of ``tokens``
    (B, L, features), of which those with a NaN are not there and count as zero, that is a row without any."""

    def __init__(self, shape: Sequence[int], width: int, tokens: bool = False) -> None:
        super().__init__()
        self.tokens = tokens
        self.layers = nn.Sequential(nn.Linear(math.prod(shape), width), nn.SiLU(), nn.Linear(width, width))
        self.null = nn.Parameter(torch.randn(width))

    def forward(self, vector: Tensor) -> Tensor:
        flat, absent = vector.flatten(1), vector.isnan()
        if self.tokens:
            absent = absent.any(2, keepdim=True).expand_as(vector)
        absent = absent.flatten(1)
        null = absent.all(1, keepdim=True) if self.tokens else absent.any(1, keepdim=True)
        return torch.where(null, self.null, self.layers(flat.masked_fill(absent if self.tokens else null, 0)))


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


NOISE_EMBEDDINGS = ("sinusoidal", "fourier")


def sinusoidal_frequencies(count: int = 16, lowest: float = 0.5, highest: float = 32.0) -> Tensor:
    """Geometric from lowest to highest, (count,) (Ho et al. 2020, B)."""
    return torch.linspace(math.log(lowest), math.log(highest), count).exp()


def fourier_frequencies(count: int, scale: float) -> Tensor:
    """2 pi scale w with normal w, (count,) (Tancik et al. 2020, eq. 5; Song et al. 2021, appendix H).

    The w come from a generator of their own, so that a network has the same ones whenever it is built.
    """
    if not scale > 0:
        raise ValueError(f"fourier_scale = {scale}: needs a positive number, as 16")
    normal = torch.randn(count, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    return (2 * math.pi * scale * normal).to(torch.get_default_device())


class NoiseEmbedding(nn.Module):
    """c_noise (B,) -> (B, width): cosines and sines at given frequencies, then two layers."""

    frequencies: Tensor

    def __init__(self, width: int, frequencies: Tensor) -> None:
        super().__init__()
        self.register_buffer("frequencies", frequencies)
        self.layers = nn.Sequential(nn.Linear(2 * len(frequencies), width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, c_noise: Tensor) -> Tensor:
        angle = c_noise[:, None] * self.frequencies
        return self.layers(torch.cat([angle.cos(), angle.sin()], dim=1))


class ClassEmbedding(nn.Module):
    """Labels (B,) in [0, num_classes), -1 for null -> (B, width); the null embedding is learned like the others."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(num_classes + 1, width)

    def forward(self, labels: Tensor) -> Tensor:
        return self.table(labels + 1)


def complete_tree(cond: ConditionLike | None, x: Tensor, num_classes: int | None, shapes: Shapes) -> Condition:
    """What a network of these classes and conditions is told of each row of x: all null for None. Raises ValueError for
    a condition of other kinds, shapes or numbers of rows, unless it was checked already, when it was bound."""
    tree = as_tree(cond)
    if tree is None:
        return null_tree(x, num_classes, shapes)
    if not isinstance(tree, BoundCondition):
        check_kinds(tree, num_classes, shapes)
        for kind, c in tree.items():
            if c.shape[0] != x.shape[0]:
                raise ValueError(f"the condition {kind!r} has {len(c)} rows, x has {len(x)}: needs one row per sample")
    return tree


def split_further(c_noise: Tensor) -> tuple[Tensor, Tensor | None]:
    """The noise level (B,), and what a network is told behind it, (B, numbers), or None."""
    return (c_noise, None) if c_noise.ndim == 1 else (c_noise[:, 0], c_noise[:, 1:])


class Embedding(nn.Module):
    """What a network knows besides x: the noise level, and what it is conditioned on.

    ``conditions`` are the shapes (without rows) of vector, image and sequence, where there are any, and of the level of
    the noise on one of them, which is embedded as a vector is; an image is for items of ``event_shape``. With ``flat``,
    each is embedded as a vector. ``sequence_layers`` of a transformer see a sequence first, and add to the embedding,
    which is then all that a flat one becomes. ``noise_embedding`` is one of NOISE_EMBEDDINGS; "fourier" has width / 4
    random frequencies of ``fourier_scale``. A ``mapping`` of the
    network's own, called with c_noise, labels or None, and augmentation or None, embeds these three instead.
    ``channels`` is what an image adds to the channels of x. ``further`` embeds what follows the noise level, where the
    network is told more (sde.networks.further).
    """

    further: nn.Module | None

    def __init__(
        self,
        width: int,
        num_classes: int | None,
        conditions: Shapes | None = None,
        event_shape: Sequence[int] = (),
        noise_embedding: str = "sinusoidal",
        fourier_scale: float = 16.0,
        flat: bool = False,
        mapping: nn.Module | None = None,
        sequence_layers: int = 0,
    ) -> None:
        super().__init__()
        self.mapping, self.num_classes, self.width, self.further = mapping, num_classes, width, None
        if mapping is None:
            check_choice("noise_embedding", noise_embedding, NOISE_EMBEDDINGS)
            fourier = noise_embedding == "fourier"
            frequencies = fourier_frequencies(width // 4, fourier_scale) if fourier else sinusoidal_frequencies()
            self.noise = NoiseEmbedding(width, frequencies)
            self.label = ClassEmbedding(num_classes, width) if num_classes else None
        self.conditions = shapes = {kind: tuple(shape) for kind, shape in (conditions or {}).items()}
        for kind in shapes:
            check_choice("conditions", kind, TOLD)
        flattened = [
            kind
            for kind in shapes
            if kind in ("vector", CONDITION_NOISE) or (flat and not (kind == "sequence" and sequence_layers))
        ]
        self.vectors = nn.ModuleDict(
            {kind: VectorEmbedding(shapes[kind], width, kind == "sequence") for kind in flattened}
        )
        rest = shapes.keys() - set(flattened)
        self.image = ImageInput(shapes["image"], event_shape[1:]) if "image" in rest else None
        self.channels = shapes["image"][0] if self.image else 0
        self.sequence = None
        if "sequence" in rest:
            self.sequence = SequenceTokens(shapes["sequence"][1], width, sequence_layers, attended=not flat)

    def forward(
        self, x: Tensor, c_noise: Tensor, cond: ConditionLike | None = None, augmentation: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Context | None]:
        """x with the image in further channels, the embedding (B, width) of all else, and the tokens to attend to.

        ``cond`` has the kinds that the network was built for, one row per sample; None is all null. Raises ValueError
        for another one, as ``complete_tree`` does. c_noise (B,) is the noise level; where the network is told further
        numbers, (B, 1 + numbers), it is the first.
        """
        c_noise, further = split_further(c_noise)
        tree = complete_tree(cond, x, self.num_classes, self.conditions)
        if self.mapping is not None:
            total = self.mapping(c_noise, tree.get("labels"), augmentation)
        else:
            total = self.noise(c_noise)
            if self.label:
                total = total + self.label(tree["labels"])
        if self.further is not None and further is not None:
            total = total + self.further(further)
        for kind, layer in self.vectors.items():
            total = total + layer(tree[kind].to(x.dtype))
        if self.image:
            x = self.image(x, tree["image"].to(x.dtype))
        context = None
        if self.sequence:
            context, pooled = self.sequence(tree["sequence"].to(x.dtype))
            total = total if pooled is None else total + pooled
        return x, nn.functional.silu(total), context
