"""Samplers of score models, with their time grids, the loop and likelihood. Meets score models by protocol."""

from collections.abc import Callable
from typing import Any

from samplers.adams import AdaptiveAdams
from samplers.ancestral import Ancestral
from samplers.checks import choose
from samplers.compiled import compiled
from samplers.ddim import DDIM
from samplers.deis import ExponentialAdams
from samplers.dpm2 import DPMSolver2
from samplers.dpmpp import DPMSolverPP
from samplers.encode import Decoded, Encoded, decode, encode, slerp
from samplers.euler import Euler
from samplers.euler_maruyama import EulerMaruyama
from samplers.grid import GRIDS
from samplers.heun import Heun
from samplers.jump import Jump
from samplers.langevin import AnnealedLangevin, Langevin
from samplers.likelihood.bounds import Bound, discrete_bound, variational_bound
from samplers.likelihood.evidence import EvidenceBound, evidence_bound
from samplers.likelihood.flow import LogLikelihood, log_likelihood, state_log_likelihood
from samplers.likelihood.report import LikelihoodReport, dequantized, likelihood_report
from samplers.lms import LMS
from samplers.loop.generate import Samples, generate
from samplers.loop.sample import sample
from samplers.noise.brownian import NOISES, BrownianNoise, make_noise
from samplers.noise.seeded import SeededNoise
from samplers.ode import ODE
from samplers.pc import PredictorCorrector
from samplers.planning.plan import Plan, pilot_count, plan
from samplers.protocol import FlowMap, asks_of
from samplers.renamed import sentence
from samplers.renoise import Renoise
from samplers.reverse_diffusion import ReverseDiffusion
from samplers.reverse_sde import ReverseSDE
from samplers.sa_solver import SASolver
from samplers.step import Sampler
from samplers.unipc import UniPC

PREDICTORS = {
    "ancestral": Ancestral,
    "reverse_diffusion": ReverseDiffusion,
    "euler_maruyama": EulerMaruyama,
    "ddim": DDIM,
    "euler": Euler,
    "heun": Heun,
    "dpm2": DPMSolver2,
}
"""Predictors of predictor_corrector: samplers that remember nothing, which the corrector would invalidate."""


def predictor_corrector(
    predictor: str = "ancestral", snr: float = 0.16, corrector_steps: int = 1
) -> PredictorCorrector:
    """A predictor by name with a Langevin corrector: the flat options of the sampler named "pc"."""
    return PredictorCorrector(
        PREDICTORS[choose("predictor", predictor, tuple(PREDICTORS))](), Langevin(snr, corrector_steps)
    )


SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "ancestral": Ancestral,
    "langevin": AnnealedLangevin,
    "pc": predictor_corrector,
    "ode": ODE,
    "adams": AdaptiveAdams,
    "reverse_sde": ReverseSDE,
    "ddim": DDIM,
    "reverse_diffusion": ReverseDiffusion,
    "euler_maruyama": EulerMaruyama,
    "euler": Euler,
    "heun": Heun,
    "dpm2": DPMSolver2,
    "lms": LMS,
    "dpmpp": DPMSolverPP,
    "sa_solver": SASolver,
    "deis": ExponentialAdams,
    "unipc": UniPC,
    "jump": Jump,
    "renoise": Renoise,
}
"""Samplers by name; the keyword arguments of each are its options."""

FLOW_MAP_SAMPLERS = tuple(name for name, factory in SAMPLERS.items() if asks_of(factory) is FlowMap)
"""Those that ask for a flow map."""

SCORE_SAMPLERS = tuple(name for name in SAMPLERS if name not in FLOW_MAP_SAMPLERS)
"""Those that ask for a score model."""

_RENAMED = {"DPMpp": "DPMSolverPP", "StochasticAdams": "SASolver", "dequantised": "dequantized"}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        # No AttributeError, whose sentence ``from samplers import name`` would hide.
        raise ImportError(sentence(f"samplers.{name}", f"samplers.{_RENAMED[name]}"))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "DDIM",
    "FLOW_MAP_SAMPLERS",
    "GRIDS",
    "LMS",
    "NOISES",
    "ODE",
    "PREDICTORS",
    "SAMPLERS",
    "SCORE_SAMPLERS",
    "AdaptiveAdams",
    "Ancestral",
    "AnnealedLangevin",
    "Bound",
    "BrownianNoise",
    "DPMSolver2",
    "DPMSolverPP",
    "Decoded",
    "Encoded",
    "Euler",
    "EulerMaruyama",
    "EvidenceBound",
    "ExponentialAdams",
    "Heun",
    "Jump",
    "Langevin",
    "LikelihoodReport",
    "LogLikelihood",
    "PredictorCorrector",
    "Renoise",
    "ReverseDiffusion",
    "ReverseSDE",
    "Sampler",
    "Samples",
    "SeededNoise",
    "SASolver",
    "UniPC",
    "Plan",
    "compiled",
    "decode",
    "discrete_bound",
    "encode",
    "dequantized",
    "evidence_bound",
    "generate",
    "likelihood_report",
    "log_likelihood",
    "make_noise",
    "pilot_count",
    "plan",
    "sample",
    "slerp",
    "state_log_likelihood",
    "variational_bound",
]
