"""ADM's classifier: its way down and middle, pooled to logits (Dhariwal and Nichol 2021, section 4 and appendix H)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sde.networks.adm import ADMEncoder
from sde.networks.adm_options import ADMOptions
from sde.networks.attention import attend, heads_of, may_fuse
from sde.networks.layers import check_choice, zero_init
from sde.networks.unet_options import takes_options

POOLS = ("attention", "adaptive", "spatial", "spatial_v2")
HIDDEN = 2048


class AttentionPool(nn.Module):
    """The mean of all positions attends to itself and to them (Radford et al. 2021, section 2.4): (B, C, *space) ->
    (B, outputs). Positions are learned, so that ``space`` is that of the data."""

    def __init__(self, channels: int, outputs: int, heads: int, space: Sequence[int]) -> None:
        super().__init__()
        self.heads = heads
        self.positions = nn.Parameter(torch.randn(channels, math.prod(space) + 1) / channels**0.5)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, outputs)

    def forward(self, x: Tensor, fused: bool = False) -> Tensor:
        x = x.flatten(2)
        if x.shape[2] + 1 != self.positions.shape[1]:
            raise ValueError(
                f"x has {x.shape[2]} positions at the last level, and this classifier was built for "
                f"{self.positions.shape[1] - 1}: pool adaptive takes any size"
            )
        tokens = (torch.cat([x.mean(2, keepdim=True), x], dim=2) + self.positions).transpose(1, 2)
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.out(attend(q[:, :, :1], k, v, fused=fused).flatten(1))


@takes_options(ADMOptions, without=("sequence_layers",))
class ADMClassifier(nn.Module):
    """forward(x, c_noise) -> logits (B, num_classes): ADM down to its middle, and a pool.

    ``pool`` "attention" attends to the positions of the middle from their mean, so that x has the size of
    ``event_shape``; "adaptive" averages them. "spatial" and "spatial_v2" take the means over space of all activations
    through two layers, with a ReLU or with group norm and SiLU between. The other keyword arguments are those of
    ``ADMOptions``. Raises ValueError for any other pool.
    """

    def __init__(
        self, event_shape: Sequence[int], num_classes: int, *, pool: str = "attention", **options: Any
    ) -> None:
        super().__init__()
        check_choice("pool", pool, POOLS)
        self.num_classes, self.pool, chosen = num_classes, pool, ADMOptions(**options)
        self.encoder = encoder = ADMEncoder(event_shape, None, chosen)
        channels = encoder.channels
        self.head: nn.Module
        if pool.startswith("spatial"):
            features = sum(map(sum, encoder.skip_channels)) + channels
            between = [nn.ReLU()] if pool == "spatial" else [nn.GroupNorm(32, HIDDEN), nn.SiLU()]
            self.head = nn.Sequential(nn.Linear(features, HIDDEN), *between, nn.Linear(HIDDEN, num_classes))
            return
        self.norm = encoder.shared.norm(channels)
        if pool == "adaptive":
            self.head = zero_init(nn.Linear(channels, num_classes))
        else:
            space = [math.ceil(size / chosen.factor) for size in event_shape[1:]]
            self.head = AttentionPool(channels, num_classes, heads_of(encoder.shared, channels), space)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        skips, h, *_ = self.encoder(x, c_noise)
        if self.pool.startswith("spatial"):
            features = [activation for level in skips for activation in level] + [h]
            return self.head(torch.cat([feature.flatten(2).mean(2) for feature in features], dim=1))
        h = F.silu(self.norm(h))
        return self.head(h.flatten(2).mean(2)) if self.pool == "adaptive" else self.head(h, may_fuse(self, x))
