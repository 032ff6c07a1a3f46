"""EDM: pickles of Karras et al. 2022."""

from sde.pretrained.edm.source import OPTIONS, PROJECT, read, recognizes

__all__ = ["OPTIONS", "PROJECT", "read", "recognizes"]
