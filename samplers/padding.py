"""Padding: items of unequal size in one tensor, of which a score model sees what is real alone."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from samplers.checks import check_integer
from samplers.host import as_python
from samplers.protocol import is_flow_map, transform_of

Sizes = Sequence[int] | Tensor
"""How many entries of each item are real along every axis behind the channels (``real_part``)."""


def real_part(event_shape: Sequence[int], size: int) -> tuple[slice, ...]:
    """Where an item of a shape (channels, *space), or (length,), is real: its first ``size`` entries along every axis
    of space, or all of a shorter axis."""
    channels = event_shape[:1] if len(event_shape) > 1 else ()
    return (*(slice(None) for _ in channels), *(slice(min(size, length)) for length in event_shape[len(channels) :]))


def real(sizes: Tensor, event_shape: Sequence[int]) -> Tensor:
    """Booleans (B, *event), True where items of these sizes (B,) are real; on the CPU."""
    found = torch.zeros(len(sizes), *event_shape, dtype=torch.bool, device="cpu")
    for row, size in zip(found, sizes.tolist(), strict=True):
        row[real_part(event_shape, size)] = True
    return found


def real_index(sizes: Tensor, event_shape: Sequence[int]) -> Tensor:
    """The number (B, *event) of each entry among those of its item that are real, in the order of memory; -1 where
    items of these sizes (B,) are padded. On the CPU."""
    held = real(sizes, event_shape)
    return torch.where(held, held.view(len(held), -1).cumsum(1).view(held.shape) - 1, -1)


def real_counts(sizes: Tensor | None, event_shape: Sequence[int]) -> Tensor:
    """How many entries of each item are real, (B,) in float64; of all items alike, (), without sizes."""
    if sizes is None:
        return torch.tensor(float(torch.Size(event_shape).numel()), dtype=torch.float64, device="cpu")
    return real(sizes, event_shape).flatten(1).sum(1).double()


def cut(x: Tensor, sizes: Tensor | None) -> Tensor:
    """x (B, *event) with 0 where it is padded; as it is without sizes."""
    return x if sizes is None else torch.where(real(sizes, x.shape[1:]).to(x.device), x, 0)


def filled(
    shape: Sequence[int], sizes: Tensor | None, draw: Callable[[int, tuple[int, ...]], np.ndarray], lead: int = 0
) -> Tensor:
    """Rows ``draw(i, part)`` in zeros, stacked: ``part`` is the shape of what is real of item i, before which a row has
    ``lead`` axes. Of a shape (B, *event) that is (B, ..., *event); what is drawn for an item does not depend on how far
    it is padded."""
    count, event = shape[0], tuple(shape[1:])
    if sizes is None:
        return torch.from_numpy(np.stack([draw(i, event) for i in range(count)]))
    rows = []
    for i, size in enumerate(sizes.tolist()):
        where = real_part(event, size)
        drawn = draw(i, tuple(np.empty(event, bool)[where].shape))
        row = np.zeros((*drawn.shape[:lead], *event), drawn.dtype)
        row[(*[slice(None)] * lead, *where)] = drawn
        rows.append(row)
    return torch.from_numpy(np.stack(rows))


def check_sizes(sizes: Sizes | None, count: int, event_shape: Sequence[int]) -> Tensor | None:
    """The sizes (count,), int64 on the CPU, of items of a shape, or None. Raises ValueError for anything else than an
    integer per item, from 1 to its longest axis of space."""
    if sizes is None:
        return None
    listed = [*as_python(sizes)]
    if len(listed) != count:
        raise ValueError(f"sizes has {len(listed)} numbers for {count} items: give one per item")
    most = max(event_shape[1:] or event_shape)
    return torch.tensor([check_integer("sizes", size, 1, most) for size in listed], device="cpu")


def padded(model, sizes: Tensor | None):
    """The model for items of these sizes; as it is without any."""
    if sizes is None:
        return model
    return PaddedFlowMap(model, sizes) if is_flow_map(model) else Padded(model, sizes)


def row_means(values: Tensor, model) -> Tensor:
    """Means (B,) of values (B, *inner) over the entries that are real where the model is padded; over all elsewhere."""
    if not isinstance(model, Padded):
        return values.flatten(1).mean(1)
    held = model.real(values)
    return torch.where(held, values, 0).flatten(1).sum(1) / held.flatten(1).sum(1)


def real_share(model, x: Tensor) -> Tensor | None:
    """The share (B,) of the entries of x (B, *inner) that are real to a padded model, on the CPU; None for another."""
    return real_counts(model.sizes, x.shape[1:]) / x[0].numel() if isinstance(model, Padded) else None


class Padded(nn.Module):
    """A score model of states x (B, *inner) that are padded, by ``sizes`` (B,): the ``model`` sees 0 where x is, as in
    training, and what it says there is 0. A state that is 0 there stays so, and nothing else depends on it."""

    def __init__(self, model, sizes: Tensor) -> None:
        super().__init__()
        self.model, self.sizes = model, sizes
        self._real: Tensor | None = None

    @property
    def sde(self) -> Any:
        return self.model.sde

    @property
    def transform(self) -> Any:
        return transform_of(self.model)

    @property
    def normalized(self) -> bool:
        return getattr(self.model, "normalized", True)

    @property
    def null_trained(self) -> bool:
        return getattr(self.model, "null_trained", True)

    @property
    def event_shape(self) -> tuple[int, ...] | None:
        return getattr(self.model, "event_shape", None)

    def rows(self, index: Tensor | slice) -> "Padded":
        return type(self)(self.model.rows(index), self.sizes[index])

    def real(self, x: Tensor) -> Tensor:
        """Booleans of the shape and on the device of x, True where it is real."""
        held = self._real
        if held is None or held.shape != x.shape or held.device != x.device:
            # Once, as a copy from the host at every call would make it wait for the device.
            held = self._real = real(self.sizes, x.shape[1:]).to(x.device)
        return held

    def _seen(self, function: Callable[..., Tensor], x: Tensor, *times: Tensor) -> Tensor:
        held = self.real(x)
        output = function(torch.where(held, x, 0), *times)
        # Of other processes than Gaussian ones an output may have another shape, which their samplers know.
        return torch.where(held, output, 0) if output.shape == x.shape else output

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self._seen(self.model, x, t)

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        return self._seen(self.model.score, x, t)

    def noise(self, x: Tensor, t: Tensor) -> Tensor:
        return self._seen(self.model.noise, x, t)

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        return self._seen(self.model.velocity, x, t)


class PaddedFlowMap(Padded):
    """A flow map of states that are padded, as Padded is a score model."""

    def forward(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:  # type: ignore[override]
        return self._seen(self.model, x, t, s)

    def jump(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return self(x, t, s)
