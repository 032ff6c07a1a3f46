"""Inverse problems: measurement operators, and posterior samplers given a measurement."""

from sde.inverse.operators import Blur, CompressedSensing, Grayscale, Mask, SuperResolution
from sde.inverse.posterior import DPS, MMPS, PiGDM, Replacement
from sde.renamed import gone

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


def __getattr__(name: str) -> object:
    raise gone(__name__, name, {"MomentMatching": "MMPS"})
