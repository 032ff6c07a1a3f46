"""What is learned: diffusion processes, noise-conditional networks, score models, guidance, training."""

from sde.model import PARAMETRIZATIONS, Denoiser, NoisyClassifier, ScoreModel
from sde.process import SDE, SDES, VESDE, VPSDE, SubVPSDE
from sde.transform import Transform

__all__ = [
    "PARAMETRIZATIONS",
    "SDE",
    "SDES",
    "Denoiser",
    "NoisyClassifier",
    "ScoreModel",
    "SubVPSDE",
    "Transform",
    "VESDE",
    "VPSDE",
]

__version__ = "0.1.0"
