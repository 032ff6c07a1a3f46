"""k-diffusion: its U-Net and its hourglass transformer."""

from sde.pretrained.k_diffusion.source import OPTION_KINDS, OPTIONS, PROJECT, read, recognizes

__all__ = ["OPTION_KINDS", "OPTIONS", "PROJECT", "read", "recognizes"]
