"""Autoencoders: items as smaller latents, and back."""

from sde.autoencoder.base import Autoencoder
from sde.autoencoder.kl import KLAutoencoder
from sde.autoencoder.tiny import TinyAutoencoder
from sde.named import component, subclass_of

AUTOENCODERS: dict[str, type[Autoencoder]] = {"kl": KLAutoencoder, "tiny": TinyAutoencoder}
"""Autoencoders by name; built as Autoencoder(event_shape, **options)."""


def autoencoder_of(name: str, key: str = "network") -> type[Autoencoder]:
    """The class of a name in AUTOENCODERS, or of an import path, package.module:Class, where that is a subclass of
    ``Autoencoder``. Raises ValueError for any other."""
    return component(AUTOENCODERS, key, name, subclass_of(Autoencoder), "a subclass of sde.autoencoder.Autoencoder")


__all__ = ["AUTOENCODERS", "Autoencoder", "KLAutoencoder", "TinyAutoencoder", "autoencoder_of"]
