"""Measurement operators A of inverse problems y = A(x) + noise: linear ones with their adjoints.

x (B, *event) and y (B, *measurement) are in data units. Any differentiable callable serves as an operator; those here
also know their adjoint A*, defined by <A x, y> = <x, A* y> for sums over the event.
"""

from sde.inverse.operators.base import LinearOperator
from sde.inverse.operators.blur import Blur
from sde.inverse.operators.compressed_sensing import CompressedSensing
from sde.inverse.operators.grayscale import Grayscale
from sde.inverse.operators.mask import Mask
from sde.inverse.operators.of_real import OfReal
from sde.inverse.operators.super_resolution import SuperResolution

__all__ = ["Blur", "CompressedSensing", "Grayscale", "LinearOperator", "Mask", "OfReal", "SuperResolution"]
