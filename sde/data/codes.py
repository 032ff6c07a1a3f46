"""Codes: the posteriors of items under a learned transform, as arrays that are read as items are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sde.data.transform import TransformLike


def coded_shape(inner_shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of a code, for latents of this shape (c, *rest): (2 c, *rest)."""
    return tuple(length * (1 if axis else 2) for axis, length in enumerate(inner_shape))


@dataclass(frozen=True)
class PosteriorCodes:
    """Mean and standard deviation of the posteriors of ``items`` (n, *event) in model units, one behind the other along
    the channels: (n, 2 c, *rest) for latents (c, *rest). They are computed when they are asked for by their positions.

    Quantized items are encoded from the middle of their cells. A standard deviation that there is none of is 0.
    """

    items: Any
    transform: TransformLike

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, 2 c, *rest)."""
        return (self.items.shape[0], *coded_shape(self.transform.inner_shape(self.items.shape[1:])))

    @torch.no_grad()
    def __getitem__(self, index: Tensor) -> Tensor:
        x = self.items[index].to(self.transform.dtype)
        mean, std = self.transform.posterior(self.transform.dequantize(x, 0.5))
        return torch.cat([mean, torch.zeros_like(mean) if std is None else std], 1)
