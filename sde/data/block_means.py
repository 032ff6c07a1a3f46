"""Block means: items at a lower resolution."""

import torch
from torch import Tensor


def block_means(x: Tensor, factor: int, axes: int) -> Tensor:
    """Means over blocks of ``factor`` entries along each of the last ``axes`` axes of x (B, *event). Raises ValueError
    for a factor below 1, too few axes, and sizes that are no multiples of the factor."""
    if factor < 1 or axes < 1:
        raise ValueError(f"factor = {factor} and axes = {axes}: both need integers of at least 1")
    sizes = tuple(x.shape[1:][-axes:])
    if len(sizes) < axes or any(size % factor for size in sizes):
        raise ValueError(
            f"an event of shape {tuple(x.shape[1:])} has no blocks of factor {factor} along its last {axes} axes: "
            f"needs as many axes, with sizes that are multiples of {factor}"
        )
    for axis in range(-axes, 0):
        x = x.unflatten(axis, (-1, factor)).mean(axis)
    return x


class BlockMeans:
    """The means over blocks of ``factor`` entries along each axis of space of items (n, channels, *space), floats,
    computed on indexing by a tensor of positions. Raises ValueError, which names the ``key`` that asks for them, for
    items without axes of space or of sizes that are no multiples.
    """

    def __init__(self, items, factor: int, key: str) -> None:
        event = tuple(items.shape[1:])
        if len(event) < 2:
            raise ValueError(f"{key} = {factor}: items of shape {event} have no axes of space to take means over")
        try:
            shape = block_means(torch.empty(1, *event, device="cpu"), factor, len(event) - 1).shape[1:]
        except ValueError as error:
            raise ValueError(f"{key} = {factor}: {error}") from None
        self.items, self.factor = items, factor
        self.dtype = torch.float64 if items.dtype == torch.float64 else torch.float32
        self.shape = torch.Size((items.shape[0], *shape))

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.of(self.items[index].to(self.dtype))

    def of(self, x: Tensor) -> Tensor:
        """The means of items x (B, channels, *space) at hand."""
        return block_means(x, self.factor, x.ndim - 2)

    def held(self) -> "Tensor | BlockMeans":
        """All of them in memory, where the items are."""
        if not isinstance(self.items, Tensor):
            return self
        return torch.cat([self[index] for index in torch.arange(self.shape[0], device="cpu").split(4096)])
