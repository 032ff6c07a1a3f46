"""Embeddings of the noise level and of class labels."""

import math

import torch
from torch import Tensor, nn

from sde.condition import Condition, null_like
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
    """What a network knows besides x: the noise level and, where there are classes, the class; (B, width).

    ``noise_embedding`` is one of NOISE_EMBEDDINGS; "fourier" has width / 4 random frequencies of ``fourier_scale``.
    """

    def __init__(
        self,
        width: int,
        num_classes: int | None,
        noise_embedding: str = "sinusoidal",
        fourier_scale: float = 16.0,
    ) -> None:
        super().__init__()
        check_choice("noise_embedding", noise_embedding, NOISE_EMBEDDINGS)
        fourier = noise_embedding == "fourier"
        frequencies = fourier_frequencies(width // 4, fourier_scale) if fourier else sinusoidal_frequencies()
        self.noise = NoiseEmbedding(width, frequencies)
        self.label = ClassEmbedding(num_classes, width) if num_classes else None

    def forward(self, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        if self.label is None:
            if cond is not None:
                raise ValueError("a condition was given to an unconditional network: leave it out")
            return nn.functional.silu(self.noise(c_noise))
        if cond is None:
            cond = null_like(torch.empty_like(c_noise, dtype=torch.long))
        if isinstance(cond, dict):
            raise ValueError(f"this network takes class labels (B,), not a dict with {', '.join(cond)}")
        return nn.functional.silu(self.noise(c_noise) + self.label(cond))
