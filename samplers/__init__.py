"""How a score model is simulated: samplers, time grids, the loop, likelihood. Meets score models by protocol."""

from collections.abc import Callable

from samplers.adaptive import ODE
from samplers.ancestral import DDIM, Ancestral
from samplers.diffusion import EulerMaruyama
from samplers.flow import Euler, Heun
from samplers.grid import GRIDS
from samplers.langevin import AnnealedLangevin, Langevin, PredictorCorrector
from samplers.likelihood import LogLikelihood, log_likelihood
from samplers.loop import Samples, generate, sample
from samplers.multistep import DPMpp
from samplers.noise import SeededNoise
from samplers.step import Sampler, choose

PREDICTORS = {
    "ancestral": Ancestral,
    "euler_maruyama": EulerMaruyama,
    "ddim": DDIM,
    "euler": Euler,
    "heun": Heun,
}
"""What ``--sampler pc`` predicts with: samplers that remember nothing, which the corrector would invalidate."""


def predictor_corrector(predictor: str = "ancestral", snr: float = 0.16, corrections: int = 1) -> PredictorCorrector:
    """A predictor by name with a Langevin corrector: the flat options of ``--sampler pc``."""
    return PredictorCorrector(
        PREDICTORS[choose("predictor", predictor, tuple(PREDICTORS))](), Langevin(snr, corrections)
    )


SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "ancestral": Ancestral,
    "langevin": AnnealedLangevin,
    "pc": predictor_corrector,
    "ode": ODE,
    "ddim": DDIM,
    "euler_maruyama": EulerMaruyama,
    "euler": Euler,
    "heun": Heun,
    "dpmpp": DPMpp,
}
"""Samplers by name; the keyword arguments of each are its options."""

__all__ = [
    "DDIM",
    "GRIDS",
    "ODE",
    "PREDICTORS",
    "SAMPLERS",
    "Ancestral",
    "AnnealedLangevin",
    "DPMpp",
    "Euler",
    "EulerMaruyama",
    "Heun",
    "Langevin",
    "LogLikelihood",
    "PredictorCorrector",
    "Sampler",
    "Samples",
    "SeededNoise",
    "generate",
    "log_likelihood",
    "sample",
]
