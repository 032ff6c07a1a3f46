"""The MLP: a residual network for vectors, and for small items of any shape."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from sde.condition.tree import Condition, Shapes
from sde.networks.dropout import Dropout
from sde.networks.embedding import Embedding
from sde.networks.layers import zero_init


class ResidualLayer(nn.Module):
    """Layer norm, scale and shift by the embedding, two linear layers, added to the input."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.SiLU(), Dropout(dropout), zero_init(nn.Linear(width, width))
        )

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding).chunk(2, dim=1)
        return h + self.layers(self.norm(h) * (1 + scale) + shift)


class MLPEncoder(nn.Module):
    """Items of any shape -> features (B, width), by residual layers that know the noise level and the condition."""

    def __init__(
        self,
        event_shape: Sequence[int],
        num_classes: int | None,
        width: int,
        layers: int,
        dropout: float,
        conditions: Shapes | None = None,
        sequence_layers: int = 0,
    ) -> None:
        super().__init__()
        self.stem = nn.Linear(math.prod(event_shape), width)
        self.embedding = Embedding(width, num_classes, conditions, flat=True, sequence_layers=sequence_layers)
        self.layers = nn.ModuleList(ResidualLayer(width, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        _, embedding, _ = self.embedding(x, c_noise, cond)
        h = self.stem(x.flatten(1))
        for layer in self.layers:
            h = layer(h, embedding)
        return self.norm(h)


class MLP(nn.Module):
    """forward(x, c_noise, cond) -> a tensor of the shape of x (B, *event), which starts at zero.

    ``cond`` holds labels below ``num_classes``, -1 for null, and what ``conditions`` gives the shapes of, all of it
    flattened to vectors (sde.condition); None is all null. With ``sequence_layers`` of a transformer a sequence is what
    these add to the embedding instead, whatever its length.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        num_classes: int | None = None,
        width: int = 256,
        layers: int = 4,
        dropout: float = 0.0,
        sequence_layers: int = 0,
        conditions: Shapes | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.encoder = MLPEncoder(event_shape, num_classes, width, layers, dropout, conditions, sequence_layers)
        self.conditions = self.encoder.embedding.conditions
        self.head = zero_init(nn.Linear(width, math.prod(event_shape)))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        return self.head(self.encoder(x, c_noise, cond)).view_as(x)
