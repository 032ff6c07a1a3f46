"""Copies: batches on their way to a device, on a stream beside its computations where it has streams."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Copy(Generic[T]):
    """Tensors in a nest of tuples and dicts, and the ``event`` after which they are on the device; None: they are."""

    value: T
    event: Any


class CopyStream:
    """A stream of a CUDA device for copies, which then run beside the computations of other streams. On other devices
    copies are made at once, in the order of all else."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self.stream is not None:
            # What lies on the device already may be read from here on.
            self.stream.wait_stream(torch.cuda.current_stream(device))

    @property
    def beside(self) -> bool:
        """Whether copies run beside computations."""
        return self.stream is not None

    def begin(self, place: Callable[[], T]) -> Copy[T]:
        """place(), whose copies and kernels are on this stream; the CPU does not wait for them."""
        if self.stream is None:
            return Copy(place(), None)
        with torch.cuda.stream(self.stream):
            value = place()
            return Copy(value, self.stream.record_event())

    def take(self, copy: Copy[T]) -> T:
        """What was copied, for the current stream, which waits for it; the CPU does not."""
        if copy.event is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(copy.event)
            for x in tensors(copy.value):
                if x.is_cuda:
                    # Or else their memory would be used for the next copies as soon as Python lets go of them, while
                    # kernels of the current stream still read it.
                    x.record_stream(current)
        return copy.value


def tensors(value: object) -> Iterator[Tensor]:
    """The tensors in a nest of tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from tensors(part)
