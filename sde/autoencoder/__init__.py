"""Autoencoders, and the learned transforms that they make: the process runs in latents, data units stay outside."""

from sde.autoencoder.base import Autoencoder
from sde.autoencoder.linear import LinearAutoencoder
from sde.autoencoder.transform import LatentTransform

AUTOENCODERS: dict[str, type[Autoencoder]] = {
    "linear": LinearAutoencoder,
}
"""Autoencoders by name; built as Autoencoder(event_shape, **options)."""

__all__ = ["AUTOENCODERS", "Autoencoder", "LatentTransform", "LinearAutoencoder"]
