"""Items at a lower resolution: means over blocks."""

import torch
from torch import Tensor

from sde.operators import SuperResolution


class BlockMeans:
    """The means over blocks of ``factor`` entries along each axis of space of items (n, channels, *space), float32,
    computed on indexing by a tensor of positions. Raises ValueError, which names the ``key`` that asks for them, for
    items without axes of space or of sizes that are no multiples."""

    dtype = torch.float32

    def __init__(self, items, factor: int, key: str) -> None:
        event = tuple(items.shape[1:])
        if len(event) < 2:
            raise ValueError(f"{key} = {factor}: items of shape {event} have no axes of space to take means over")
        try:
            self.operator = SuperResolution(factor, len(event) - 1)
            shape = self.operator(torch.empty(1, *event)).shape[1:]
        except ValueError as error:
            raise ValueError(f"{key} = {factor}: {error}") from None
        self.items = items
        self.shape = torch.Size((items.shape[0], *shape))

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.of(self.items[index].to(torch.float32))

    def of(self, x: Tensor) -> Tensor:
        """The means of items x (B, channels, *space) at hand."""
        return self.operator(x)

    def held(self) -> "Tensor | BlockMeans":
        """All of them in memory, where the items are."""
        if not isinstance(self.items, Tensor):
            return self
        return torch.cat([self[index] for index in torch.arange(self.shape[0]).split(4096)])
