"""The encoding: what the encoder of a network hands to its decoder, and where another network may add to it."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from sde.condition.tree import Condition
from sde.networks.attention import Context


class Encoding(NamedTuple):
    """The activations that the decoder takes up, in the order in which they are computed, the innermost last; the
    ``embedding`` (B, width); and the ``context``, or None."""

    taps: list[Tensor]
    embedding: Tensor
    context: Context | None


@runtime_checkable
class Controllable(Protocol):
    """A network that a ControlNet can be trained for: forward(x, c_noise, cond) is ``decode`` of ``encode``.

    ``decoder`` names the submodules that ``decode`` alone uses; ``tap_channels`` are the channels of the taps, and
    ``tokens`` says whether these lie in the last axis, as those of transformers do, and not in axis 1. ``hint_shape``
    (channels, *space) is that of what can be added behind the first layer of items of the event shape.
    """

    decoder: tuple[str, ...]
    tokens: bool
    tap_channels: list[int]
    hint_shape: tuple[int, ...]

    def encode(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None, hint: Tensor | None = None) -> Encoding:
        """What the decoder takes up of x (B, *event), with the ``hint`` (B, *hint_shape) added behind the first
        layer."""
        ...

    def decode(self, x: Tensor, c_noise: Tensor, encoding: Encoding, residuals: Sequence[Tensor] = ()) -> Tensor:
        """The output of the shape of x, with the ``residuals``, as many as taps and of their shapes, added to what is
        taken up."""
        ...


def with_residuals(taps: Sequence[Tensor], residuals: Sequence[Tensor]) -> list[Tensor]:
    """The taps of a U-Net, each with its residual, where there are any."""
    return [tap + residual for tap, residual in zip(taps, residuals, strict=True)] if residuals else [*taps]
