"""The samplers that batteries run over: every registered one, and each with its options."""

from samplers import (
    DDIM,
    LMS,
    PREDICTORS,
    SAMPLERS,
    SCORE_SAMPLERS,
    Ancestral,
    AnnealedLangevin,
    DPMSolverPP,
    EulerMaruyama,
    ExponentialAdams,
    PredictorCorrector,
    ReverseDiffusion,
    ReverseSDE,
    SASolver,
    UniPC,
)
from samplers.numerics.exponential import PREDICTIONS

VARIANTS = {name: SAMPLERS[name]() for name in SCORE_SAMPLERS} | {
    # Its paths are drawn slowly: a loose tolerance does for what is asked here.
    "reverse_sde": ReverseSDE(0.5, 0.5),
    "euler_maruyama-sine": EulerMaruyama(0.5, diffusion="sine"), "euler_maruyama-0.3": EulerMaruyama(diffusion=0.3),
    "reverse_diffusion-sigma": ReverseDiffusion(diffusion="sigma"),
    "ancestral-beta": Ancestral("beta"), "ddim-eta": DDIM(0.5), "ddim-1": DDIM(1.0),
    **{f"deis-{k}-{kind}": ExponentialAdams(k, kind) for k in (1, 2, 3, 4) for kind in PREDICTIONS},
    **{f"unipc-{k}-{kind}": UniPC(k, kind) for k in (1, 2, 3) for kind in PREDICTIONS},
    **{f"unipc-2-{kind}": UniPC(2, variant=kind) for kind in ("bh1", "bh2")},
    **{f"dpmpp-{k}{'s' * single}": DPMSolverPP(k, single) for k in (1, 2, 3) for single in (False, True)},
    "lms-2": LMS(2), "lms-denoised": LMS(to_zero=False),
    **{f"sa_solver-{k}m": SASolver(k) for k in (1, 3)}, "sa_solver-eta": SASolver(2, eta=0.4),
    "sa_solver-1-noise": SASolver(1, "noise"), "sa_solver-3-noise": SASolver(3, "noise"),
    # With a corrector that hardly moves, the order of the pair is that of its predictor.
    **{f"pc-{name}": PredictorCorrector(kind(), AnnealedLangevin(1e-12)) for name, kind in PREDICTORS.items()},
}  # fmt: skip
ORDERED = {name: sampler for name, sampler in VARIANTS.items() if sampler.order and name != "pc"}
