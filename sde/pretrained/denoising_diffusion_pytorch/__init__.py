"""denoising-diffusion-pytorch: its trainer's files."""

from sde.pretrained.denoising_diffusion_pytorch.source import OPTION_KINDS, OPTIONS, PROJECT, read, recognizes

__all__ = ["OPTION_KINDS", "OPTIONS", "PROJECT", "read", "recognizes"]
