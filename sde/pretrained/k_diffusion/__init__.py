"""k-diffusion: its U-Net and its hourglass transformer."""

from sde.pretrained.k_diffusion.source import OPTIONS, PROJECT, read, recognizes

__all__ = ["OPTIONS", "PROJECT", "read", "recognizes"]
