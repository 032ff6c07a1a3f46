"""Autoencoders, and the learned transforms that they make: the process runs in latents, data units stay outside."""

from sde.autoencoder.base import Autoencoder
from sde.autoencoder.kl import KLAutoencoder
from sde.autoencoder.linear import LinearAutoencoder
from sde.autoencoder.measurement import in_latents, standardized
from sde.autoencoder.tiny import TinyAutoencoder
from sde.autoencoder.transform import LatentTransform
from sde.named import component, subclass_of

AUTOENCODERS: dict[str, type[Autoencoder]] = {
    "kl": KLAutoencoder,
    "tiny": TinyAutoencoder,
    "linear": LinearAutoencoder,
}
"""Autoencoders by name; built as Autoencoder(event_shape, **options)."""


def autoencoder_of(name: str, key: str = "network") -> type[Autoencoder]:
    """The class of a name in AUTOENCODERS, or of an import path, package.module:Class, where that is a subclass of
    ``Autoencoder``. Raises ValueError for any other."""
    return component(AUTOENCODERS, key, name, subclass_of(Autoencoder), "a subclass of sde.autoencoder.Autoencoder")


__all__ = [
    "AUTOENCODERS",
    "Autoencoder",
    "KLAutoencoder",
    "LatentTransform",
    "LinearAutoencoder",
    "TinyAutoencoder",
    "autoencoder_of",
    "in_latents",
    "standardized",
]
