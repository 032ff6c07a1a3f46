"""EDM: pickles of Karras et al. 2022."""

from sde.pretrained.edm.source import OPTION_KINDS, OPTIONS, PROJECT, read, recognizes

__all__ = ["OPTION_KINDS", "OPTIONS", "PROJECT", "read", "recognizes"]
