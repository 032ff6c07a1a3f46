"""Inverse problems: measurement operators, and posterior samplers given a measurement."""

from sde.inverse.operators import Blur, CompressedSensing, Grayscale, Mask, SuperResolution
from sde.inverse.posterior import DPS, MMPS, PiGDM, Replacement

__all__ = [
    "DPS",
    "Blur",
    "CompressedSensing",
    "Grayscale",
    "Mask",
    "MMPS",
    "PiGDM",
    "Replacement",
    "SuperResolution",
]
