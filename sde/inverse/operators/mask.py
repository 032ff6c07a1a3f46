"""The mask: some entries of an event, as they are."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sde.condition.binding import expand_rows
from sde.device import as_tensor
from sde.inverse.operators.base import LinearOperator, check_event


class Mask(LinearOperator):
    """The entries where ``mask`` is True, in a row: (B, *event) -> (B, number of them).

    ``mask`` is boolean, True where x is observed. It has the event's shape or its last axes' alone, as (H, W) for
    (C, H, W), and then holds for all that precede them; or it is (B, *event), one for each sample. Of several masks,
    the rows of those that observe less end in zeros, up to ``width``, by default the most that one observes. A A* = 1
    on what is observed; ``adjoint`` puts zeros elsewhere. Raises ValueError for a mask of another type or shape, or one
    that observes nothing.
    """

    mask: Tensor
    index: Tensor
    filled: Tensor

    def __init__(self, mask: Tensor, event_shape: Sequence[int], width: int | None = None) -> None:
        super().__init__()
        mask = as_tensor(mask)
        event_shape, shape = tuple(event_shape), tuple(mask.shape)
        if mask.dtype != torch.bool:
            raise ValueError(f"mask has dtype {mask.dtype}: needs torch.bool, True where x is observed, as mask > 0.5")
        each = shape[1:] == event_shape
        if not each and (not shape or shape != event_shape[-len(shape) :]):
            raise ValueError(
                f"mask has shape {shape}, the data {event_shape}: needs the shape of the data or its last axes, as "
                f"{event_shape[-2:]}, or (B, {', '.join(map(str, event_shape))}), one for each sample"
            )
        flat = (mask if each else mask.expand(event_shape)).reshape(-1, math.prod(event_shape))
        counts = flat.sum(1)
        if not counts.all():
            which = f"for sample {int(counts.argmin())}" if len(counts) > 1 else "everywhere"
            raise ValueError(f"mask is False {which}: True marks what is observed, so that nothing would be")
        self.event_shape = event_shape
        self.register_buffer("mask", flat.clone().view(-1, *event_shape) if each else flat.clone().view(event_shape))
        # Numbers, as a boolean index would make a GPU's host wait to learn how many there are.
        index = (~flat).byte().argsort(dim=1, stable=True)[:, : width or int(counts.max())]
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("filled", flat.gather(1, index), persistent=False)

    def rows(self, index: Tensor | slice) -> "Mask":
        return self if len(self.index) == 1 else Mask(self.mask[index], self.event_shape, self.index.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        check_event("mask", self.event_shape, x)
        return torch.where(self.filled.to(x.device), x.flatten(1).gather(1, expand_rows(self.index, x)), 0)

    def adjoint(self, y: Tensor) -> Tensor:
        y = as_tensor(y)
        if y.shape[1:] != self.index.shape[1:]:
            count = self.index.shape[1]
            raise ValueError(
                f"y has shape {tuple(y.shape)}, the mask observes {count} entries: needs (batch, {count}), as mask(x) "
                "makes of x"
            )
        x = y.new_zeros((len(y), math.prod(self.event_shape)))
        # Added, as the zeros that end a row are put where something may be.
        observed = torch.where(self.filled.to(y.device), y, 0)
        return x.scatter_add(1, expand_rows(self.index, y), observed).view(-1, *self.event_shape)

    def restore(self, x: Tensor, y: Tensor) -> Tensor:
        """x with its observed entries replaced by y, exactly: for the final samples, where y has no noise.

        x (B, *event) and y (B or 1, number of observed entries) in data units.
        """
        x, y = as_tensor(x), as_tensor(y)
        return torch.where(self.mask.to(x.device), self.adjoint(y.to(x)), x)
