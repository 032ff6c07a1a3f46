"""The autoencoder: what every one offers, a Gaussian encoder q(z | y) and a decoder of z."""

import abc
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Autoencoder(nn.Module, abc.ABC):
    """q(z | y) = N(mean(y), diag(std(y)^2)) and the decoder y(z), with p(y | z) = N(y(z), noise_std^2) around it.

    y (B, *event) are items in the autoencoder's own units, to which an ordinary ``Transform`` leads from data units;
    z (B, *latent). The buffer ``noise_std``, one number per channel of y (the first event axis), is the standard
    deviation of what the decoder misses, learned or measured; NaN where nobody has measured it yet. A subclass defines
    ``encode`` and ``decode``, which neither see other rows nor draw random numbers, and is built as
    ``Class(event_shape, **options)``. Raises ValueError for an empty shape.
    """

    noise_std: Tensor
    spec: dict | None = None
    """What rebuilds it with fresh weights (``sde.checkpoint.spec.build_autoencoder``), where that is known."""
    autocast: torch.dtype | None = None
    """The dtype of the networks' bodies, None for full precision."""
    unit_range: tuple[float, float] | None = None
    """The values of y, where they are fixed; None where items may have any."""

    def __init__(self, event_shape: Sequence[int], latent_shape: Sequence[int]) -> None:
        super().__init__()
        self.event_shape, self.latent_shape = tuple(event_shape), tuple(latent_shape)
        for name, shape in (("event_shape", self.event_shape), ("latent_shape", self.latent_shape)):
            if not shape or min(shape) < 1:
                raise ValueError(f"{name} = {shape}: needs at least one axis, each of at least one entry")
        self.register_buffer("noise_std", torch.full((self.event_shape[0],), math.nan))

    @property
    def deterministic(self) -> bool:
        """Whether the standard deviation of q(z | y) is 0."""
        return False

    @abc.abstractmethod
    def encode(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z | y), each (B, *latent); a deterministic encoder's are zeros."""

    @abc.abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """y(z), (B, *event)."""

    def forward(self, y: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The reconstruction of y, decode(mean(y) + std(y) noise), with standard normal ``noise`` (B, *latent) or none;
        and mean(y) and std(y)."""
        mean, std = self.encode(y)
        return self.decode(mean if noise is None else mean + std * noise), mean, std

    def called(self, body: nn.Module, x: Tensor) -> Tensor:
        """body(x), a part of the network, under ``autocast``, in the dtype of x."""
        with torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None):
            output: Tensor = body(x)
        return output.to(x.dtype)

    def inner_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of z for items of this shape. Raises ValueError for one that it does not take, by default every
        other than its own."""
        if tuple(event_shape) != self.event_shape:
            raise ValueError(
                f"the autoencoder is one of items of shape {self.event_shape}, and these have {tuple(event_shape)}"
            )
        return self.latent_shape
