"""Noise-conditional classifiers, built of the encoders of the denoising networks."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sde.networks.layers import group_norm
from sde.networks.mlp import MLPEncoder
from sde.networks.unet import UNetEncoder
from sde.networks.unet_options import UNetOptions, takes_options


@takes_options(UNetOptions, without=("sequence_layers",))
class UNetClassifier(nn.Module):
    """forward(x, c_noise) -> logits (B, num_classes): the U-Net's encoder, averaged over space at its last level.

    The other keyword arguments are those of ``UNetOptions``.
    """

    def __init__(self, event_shape: Sequence[int], num_classes: int, **options: Any) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.encoder = UNetEncoder(event_shape, None, UNetOptions(**options))
        self.norm = group_norm(self.encoder.channels)
        self.head = nn.Linear(self.encoder.channels, num_classes)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        skips, *_ = self.encoder(x, c_noise)
        return self.head(F.silu(self.norm(skips[-1][-1])).flatten(2).mean(2))


class MLPClassifier(nn.Module):
    """forward(x, c_noise) -> logits (B, num_classes): the residual network with a linear head."""

    def __init__(
        self, event_shape: Sequence[int], num_classes: int, width: int = 128, layers: int = 3, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.encoder = MLPEncoder(event_shape, None, width, layers, dropout)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return self.head(self.encoder(x, c_noise))
