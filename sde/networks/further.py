"""Further numbers: what a network is told behind its noise level, as the level that a flow map jumps to."""

from typing import cast

import torch
from torch import Tensor, nn

from sde.networks.embedding import sinusoidal_frequencies
from sde.networks.layers import zero_init


class FurtherEmbedding(nn.Module):
    """Numbers (B, count) -> (B, width): cosines and sines of each, then two layers, of which the last is zero at first:
    a network with it is at first the one without."""

    frequencies: Tensor

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        frequencies = sinusoidal_frequencies()
        self.register_buffer("frequencies", frequencies)
        features = 2 * count * len(frequencies)
        self.layers = nn.Sequential(nn.Linear(features, width), nn.SiLU(), zero_init(nn.Linear(width, width)))

    def forward(self, numbers: Tensor) -> Tensor:
        angle = (numbers[:, :, None] * self.frequencies).flatten(1)
        return self.layers(torch.cat([angle.cos(), angle.sin()], dim=1))


def tell_further(network: nn.Module, count: int) -> None:
    """Let a network take ``count`` further numbers: c_noise is then (B, 1 + count). Its output stays as it is until the
    new layers are trained. What embeds c_noise inside says so by its ``width`` and by ``further``, as Embedding and
    MappedEmbedding do. Raises ValueError for a network without such a part."""
    parts = [module for module in network.modules() if hasattr(module, "further") and hasattr(module, "width")]
    if not parts:
        raise ValueError(
            f"{type(network).__name__} cannot be told a second noise level, as flow maps ask: needs a network of this "
            "project, or one that embeds c_noise by sde.networks.embedding.Embedding"
        )
    for part in parts:
        weight = next(part.parameters())
        told = FurtherEmbedding(count, cast(int, part.width))
        part.further = told.to(weight.device, weight.dtype)
