"""The linear autoencoder: mean(y) = E (y - offset), y(z) = D z + offset."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sde.autoencoder.base import Autoencoder


class LinearAutoencoder(Autoencoder):
    """mean(y) = encoder (y - offset) and y(z) = decoder z + offset of flattened y and z, with one standard deviation
    ``std`` (latent_shape) of q(z | y) for every y; deterministic, with an orthonormal encoder, unless told otherwise.

    ``latent_shape`` is by default that of the items. Raises ValueError for latents of more entries than the items.
    """

    std: Tensor

    def __init__(self, event_shape: Sequence[int], latent_shape: Sequence[int] = ()) -> None:
        super().__init__(event_shape, latent_shape or event_shape)
        outside, inside = math.prod(self.event_shape), math.prod(self.latent_shape)
        if inside > outside:
            raise ValueError(
                f"latent_shape = {self.latent_shape}: {inside} numbers are more than the {outside} of an item of shape "
                f"{self.event_shape}"
            )
        self.encoder = nn.Parameter(nn.init.orthogonal_(torch.empty(inside, outside)))
        self.decoder = nn.Parameter(self.encoder.detach().T.clone())
        self.offset = nn.Parameter(torch.zeros(outside))
        self.register_buffer("std", torch.zeros(self.latent_shape))
        self.spec = {"name": "linear", "event_shape": list(self.event_shape), "latent_shape": list(self.latent_shape)}

    @classmethod
    def of(
        cls,
        encoder: Tensor,
        event_shape: Sequence[int],
        latent_shape: Sequence[int] | None = None,
        *,
        decoder: Tensor | None = None,
        offset: Tensor | None = None,
        std: Tensor | float = 0.0,
        noise_std: Tensor | float = math.nan,
    ) -> "LinearAutoencoder":
        """That of a matrix ``encoder`` (L, D), for items of D entries and L latents; the ``decoder`` (D, L) is by
        default its pseudoinverse, the transpose of an orthogonal one. Of z, ``std`` is of a shape that expands to
        ``latent_shape``; ``noise_std`` is a number or one per channel. Raises ValueError for shapes that do not fit."""
        made = cls(event_shape, (encoder.shape[0],) if latent_shape is None else latent_shape)
        decoder = torch.linalg.pinv(encoder.double()) if decoder is None else decoder
        with torch.no_grad():
            for name, held, value in (
                ("encoder", made.encoder, encoder),
                ("decoder", made.decoder, decoder),
                ("offset", made.offset, torch.zeros(()) if offset is None else offset.flatten()),
                ("std", made.std, torch.as_tensor(std)),
                ("noise_std", made.noise_std, torch.as_tensor(noise_std)),
            ):
                if value.shape != held.shape and value.numel() != 1:
                    raise ValueError(f"{name} has shape {tuple(value.shape)}: needs {tuple(held.shape)}")
                held.copy_(value)
        return made

    @property
    def deterministic(self) -> bool:
        return not bool(self.std.any())

    def encode(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """encoder (y - offset), and ``std`` for every row."""
        z = (y.flatten(1) - self.offset) @ self.encoder.T
        return z.view(-1, *self.latent_shape), self.std.expand(len(y), *self.latent_shape)

    def decode(self, z: Tensor) -> Tensor:
        """decoder z + offset."""
        return (z.flatten(1) @ self.decoder.T + self.offset).view(-1, *self.event_shape)
