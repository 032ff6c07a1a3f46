"""The linear operator: A with its adjoint."""

import abc
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sde.device import as_tensor, fits


class LinearOperator(nn.Module, abc.ABC):
    """A linear operator: ``forward(x)`` and ``adjoint(y)``. Both raise ValueError for an event that does not fit.
    Called, an operator takes arrays as well."""

    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(as_tensor(x))

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        # Of an operator that was made in inference mode as well, gradients are taken.
        super().register_buffer(name, None if tensor is None else as_tensor(tensor), persistent)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LinearOperator":
        # What moves a module. Weights are wider than most states, and not every device has their type.
        device = fn(torch.empty(0, device="cpu")).device
        for name, held in self._buffers.items():
            if held is not None and not fits(held, device):
                self._buffers[name] = held.float()
        return super()._apply(fn, recurse)

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """A x: (B, *event) -> (B, *measurement)."""

    @abc.abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """A* y: (B, *measurement) -> (B, *event)."""

    def rows(self, index: Tensor | slice) -> "LinearOperator":
        """The operator of some samples of a batch: itself, unless each sample has its own."""
        return self


def check_event(what: str, shape: Sequence[int], x: Tensor) -> None:
    """Raise ValueError unless x is (B, *shape)."""
    if tuple(x.shape[1:]) != tuple(shape):
        raise ValueError(
            f"{what} is for events of shape {tuple(shape)}, x has events of shape {tuple(x.shape[1:])}: make it for "
            "the shape of the data"
        )
