"""Score models and what they are made of: diffusion processes, noise-conditional networks, guidance, training."""

from sde import renamed
from sde.data.transform import Transform
from sde.model.classifier import NoisyClassifier
from sde.model.denoiser import PARAMETRIZATIONS, Denoiser
from sde.model.noise_input import NoiseInput
from sde.model.quantities import convert
from sde.model.score import ScoreModel
from sde.process import SDES
from sde.process.base import SDE
from sde.process.chain import ChainSDE
from sde.process.flow import GVPSDE, FlowSDE
from sde.process.ve import VESDE
from sde.process.vp import VPSDE, SubVPSDE

__all__ = [
    "PARAMETRIZATIONS",
    "SDE",
    "SDES",
    "ChainSDE",
    "FlowSDE",
    "GVPSDE",
    "Denoiser",
    "NoiseInput",
    "NoisyClassifier",
    "ScoreModel",
    "SubVPSDE",
    "Transform",
    "VESDE",
    "VPSDE",
    "convert",
]

__version__ = "0.1.0"

renamed.watch()


def __getattr__(name: str) -> object:
    raise renamed.missing(__name__, name, renamed.MOVED)
