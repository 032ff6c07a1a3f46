"""denoising-diffusion-pytorch: its trainer's files."""

from sde.pretrained.denoising_diffusion_pytorch.source import OPTIONS, PROJECT, read, recognizes

__all__ = ["OPTIONS", "PROJECT", "read", "recognizes"]
