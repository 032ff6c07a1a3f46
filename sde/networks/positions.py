"""Positions as features of tokens."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def position_embedding(grid: Sequence[int], width: int, device: torch.device | None = None) -> Tensor:
    """Positions of a grid with any number of axes -> (positions, width), the last axis fastest.

    Each axis has n = width // (2 axes) sines and as many cosines of its coordinate times 10000^(-i / n)
    (Vaswani et al. 2017, section 3.5, an axis at a time); features that are left over are zero.
    """
    count = width // (2 * len(grid))
    frequencies = 10_000.0 ** (-torch.arange(count, dtype=torch.float32, device=device) / count)
    axes = torch.meshgrid(*(torch.arange(size, device=device) for size in grid), indexing="ij")
    angles = torch.stack(axes, dim=-1).flatten(0, -2)[..., None] * frequencies
    features = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return F.pad(features, (0, width - features.shape[1]))
