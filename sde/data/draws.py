"""Draws: random numbers of items, each of a seed of its own."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def per_item(function: Callable[..., Tensor], seeds: Tensor, event_shape: Sequence[int]) -> Tensor:
    """function(event_shape, generator=...) for each seed (B,), stacked, in float32 on the CPU: an item's numbers are
    its own, whatever part of a batch is drawn where."""
    like: Any = {"dtype": torch.float32, "device": "cpu"}
    generators = (torch.Generator().manual_seed(seed) for seed in seeds.tolist())
    return torch.stack([function(event_shape, generator=generator, **like) for generator in generators])
