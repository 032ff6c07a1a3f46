"""Embeddings of the noise level and of class labels."""

import math

import torch
from torch import Tensor, nn

from sde.condition import Condition, null_like


class NoiseEmbedding(nn.Module):
    """c_noise (B,) -> (B, width): sines and cosines at geometric frequencies, then two layers (Ho et al. 2020, B)."""

    def __init__(self, width: int, features: int = 32, lowest: float = 0.5, highest: float = 32.0) -> None:
        super().__init__()
        steps = torch.linspace(math.log(lowest), math.log(highest), features // 2)
        self.register_buffer("frequencies", steps.exp())
        self.layers = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))

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
    """What a network knows besides x: the noise level and, where there are classes, the class; (B, width)."""

    def __init__(self, width: int, num_classes: int | None) -> None:
        super().__init__()
        self.noise = NoiseEmbedding(width)
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


def zero_init(layer: nn.Module) -> nn.Module:
    """The layer with all its parameters at zero, so that what it feeds starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
