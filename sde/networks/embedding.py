"""What networks are told besides x: the noise level, and what they are conditioned on."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sde.condition import FEATURES, Condition, Shapes, check_kinds, null_tree
from sde.networks.conditions import Context, ImageInput, SequenceTokens, VectorEmbedding
from sde.networks.layers import check_choice

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


class Embedding(nn.Module):
    """What a network knows besides x: the noise level, and what it is conditioned on.

    ``conditions`` are the shapes (without rows) of vector, image and sequence, where there are any; an image is for
    items of ``event_shape``. With ``flat``, each is embedded as a vector. ``noise_embedding`` is one of
    NOISE_EMBEDDINGS; "fourier" has width / 4 random frequencies of ``fourier_scale``. ``channels`` is what an image
    adds to the channels of x.
    """

    def __init__(
        self,
        width: int,
        num_classes: int | None,
        conditions: Shapes | None = None,
        event_shape: Sequence[int] = (),
        noise_embedding: str = "sinusoidal",
        fourier_scale: float = 16.0,
        flat: bool = False,
    ) -> None:
        super().__init__()
        check_choice("noise_embedding", noise_embedding, NOISE_EMBEDDINGS)
        fourier = noise_embedding == "fourier"
        frequencies = fourier_frequencies(width // 4, fourier_scale) if fourier else sinusoidal_frequencies()
        self.noise = NoiseEmbedding(width, frequencies)
        self.num_classes = num_classes
        self.label = ClassEmbedding(num_classes, width) if num_classes else None
        self.conditions = shapes = {kind: tuple(shape) for kind, shape in (conditions or {}).items()}
        for kind in shapes:
            check_choice("conditions", kind, FEATURES)
        flattened = [kind for kind in shapes if flat or kind == "vector"]
        self.vectors = nn.ModuleDict({kind: VectorEmbedding(shapes[kind], width) for kind in flattened})
        rest = shapes.keys() - set(flattened)
        self.image = ImageInput(shapes["image"], event_shape[1:]) if "image" in rest else None
        self.channels = shapes["image"][0] if self.image else 0
        self.sequence = SequenceTokens(shapes["sequence"][1], width) if "sequence" in rest else None

    def forward(
        self, x: Tensor, c_noise: Tensor, cond: Condition | None = None
    ) -> tuple[Tensor, Tensor, Context | None]:
        """x with the image in further channels, the embedding (B, width) of all else, and the tokens to attend to.

        ``cond`` has the kinds that the network was built for, one row a sample; None is all null.
        """
        if cond is None:
            tree = null_tree(x, self.num_classes, self.conditions)
        else:
            tree = check_kinds(cond, self.num_classes, self.conditions)
        for kind, c in tree.items():
            if len(c) != len(x):
                raise ValueError(f"the condition {kind!r} has {len(c)} rows, x has {len(x)}: needs one row a sample")
        total = self.noise(c_noise)
        if self.label:
            total = total + self.label(tree["labels"])
        for kind, layer in self.vectors.items():
            total = total + layer(tree[kind].to(x.dtype))
        if self.image:
            x = self.image(x, tree["image"].to(x.dtype))
        context = self.sequence(tree["sequence"].to(x.dtype)) if self.sequence else None
        return x, nn.functional.silu(total), context
