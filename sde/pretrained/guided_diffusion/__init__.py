"""guided-diffusion: networks and classifiers of Dhariwal and Nichol 2021."""

from sde.pretrained.guided_diffusion.source import OPTION_KINDS, OPTIONS, PROJECT, read, recognizes

__all__ = ["OPTION_KINDS", "OPTIONS", "PROJECT", "read", "recognizes"]
