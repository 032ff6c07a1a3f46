"""Targets of ``accuracy.py``: mixtures with exact scores and trained models, fixed samplers, and peers' figures."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from samplers import (
    DDIM,
    LMS,
    ODE,
    DPMSolver2,
    DPMSolverPP,
    Euler,
    ExponentialAdams,
    Heun,
    Sampler,
    SeededNoise,
    UniPC,
    sample,
)
from samplers.calls import Watch
from samplers.grid import make_grid
from samplers.noise.seeded import sample_seeds
from samplers.numerics.exponential import PREDICTIONS
from sde import SDE, VESDE, VPSDE, ScoreModel, SubVPSDE
from sde.checkpoint.models import load_model
from sde.guidance.classifier_free import ClassifierFree
from tests.oracles.exact import GaussianMixture

VE = VESDE(sigma_min=0.02, sigma_max=80.0)

REFERENCE = ODE(rtol=1e-10, atol=1e-10, max_nfe=1_000_000)


def ring() -> GaussianMixture:
    """Eight modes on the unit circle, std 0.05."""
    angles = np.arange(8) * 2 * np.pi / 8
    return GaussianMixture(VE, torch.from_numpy(np.stack([np.cos(angles), np.sin(angles)], 1)), 0.05)


def digits() -> GaussianMixture:
    """A Gaussian of std 0.1 on each of scikit-learn's 1797 digits of 8x8 pixels, scaled to [-1, 1]."""
    from sklearn.datasets import load_digits

    return GaussianMixture(VE, torch.from_numpy(load_digits().data / 8 - 1), 0.1)


def lattice() -> GaussianMixture:
    """25 modes on a square lattice over [-1, 1]^2, std 0.05."""
    side = np.linspace(-1, 1, 5)
    return GaussianMixture(VE, torch.from_numpy(np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)), 0.05)


def random(dim: int, count: int, std: float, sde: SDE = VE, size: float = 1.0) -> GaussianMixture:
    """``count`` modes with means from N(0, size^2 I) and weights from a Dirichlet law."""
    generator = np.random.default_rng(0)
    means = torch.from_numpy(size * generator.standard_normal((count, dim)))
    return GaussianMixture(sde, means, size * std, torch.from_numpy(generator.dirichlet(np.ones(count) * 2)))


TARGETS: dict[str, Callable[[], GaussianMixture]] = {
    "ring": ring,
    "digits": digits,
    "gmm16": lambda: random(16, 10, 0.3),
}
"""The targets that the peers were measured on."""

OTHERS: dict[str, Callable[[], GaussianMixture]] = {
    "lattice": lattice,
    "gmm2": lambda: random(2, 2, 0.2),
    "gmm4": lambda: random(4, 6, 0.1),
    "gmm8-broad": lambda: random(8, 3, 0.5),
    "gmm8-large": lambda: random(8, 12, 0.2, size=5.0),
    "gmm32": lambda: random(32, 20, 0.2),
    "gmm64": lambda: random(64, 40, 0.05),
    "gmm16-vp": lambda: random(16, 10, 0.3, VPSDE()),
    "gmm8-subvp": lambda: random(8, 5, 0.1, SubVPSDE()),
}
"""Further targets, on which nothing was tuned and no peer was measured."""

PEERS = {
    "ring": {5: 1.7e-2, 8: 5.9e-3, 10: 2.8e-3, 15: 1.5e-3, 20: 8.2e-4, 30: 2.0e-4, 50: 2.5e-5, 100: 2.8e-6},
    "digits": {5: 4.1e-2, 8: 1.3e-2, 10: 1.1e-2, 15: 3.5e-3, 20: 1.8e-3, 30: 5.8e-4, 50: 1.0e-4, 100: 6.2e-6},
    "gmm16": {5: 2.0e-2, 8: 1.1e-2, 10: 5.0e-3, 15: 4.6e-3, 20: 9.1e-4, 30: 2.3e-4, 50: 5.4e-5, 100: 7.6e-6},
}
"""The least error of ten samplers of k-diffusion, azula, diffusers and EDM at each number of calls, each with its
better of the same two grids: measured by us with this protocol; see docs/accuracy.md."""


class Fixed(NamedTuple):
    """A sampler with the network calls of its step."""

    sampler: Sampler
    stages: int = 1


FIXED = {
    "euler": Fixed(Euler()),
    "ddim": Fixed(DDIM()),
    "heun": Fixed(Heun(), 2),
    "dpm2": Fixed(DPMSolver2(), 2),
    "lms": Fixed(LMS()),
    "dpmpp-2": Fixed(DPMSolverPP(2)),
    "dpmpp-2-singlestep": Fixed(DPMSolverPP(2, singlestep=True), 2),
    "dpmpp-3-singlestep": Fixed(DPMSolverPP(3, singlestep=True), 3),
    "deis-1-v": Fixed(ExponentialAdams(1, "v")),
    **{
        f"deis-{order}-{prediction}": Fixed(ExponentialAdams(order, prediction))
        for prediction in PREDICTIONS
        for order in (2, 3, 4)
    },
    **{f"unipc-{points}": Fixed(UniPC(points)) for points in (1, 2, 3)},
}
"""dpmpp-1, deis-1-noise and deis-1-denoised are ddim, and dpmpp-3 is deis-3-denoised."""


@dataclass(frozen=True)
class Case:
    """A model with starting points and where its probability-flow ODE leads them; ``for_rows(count)`` is the model for
    as many rows as ``plan`` and others ask for."""

    model: ScoreModel
    start: Tensor
    end: Tensor
    for_rows: Callable[[int], ScoreModel]
    quantile: float = 0.5

    def error(self, sampler, times: Tensor) -> tuple[float, float]:
        """The median over samples, or another quantile, of the distance to the solution, over the root mean square norm
        of the solutions; and the counted network calls of a sample. Infinite where a sample is."""
        with Watch(self.model, len(self.start)) as counter:
            try:
                x = sample(self.model, sampler, self.start, times, denoise=False)
            except FloatingPointError:
                return float("inf"), counter.nfe.mean().item()
        gap, end = (part.double().flatten(1) for part in (x - self.end, self.end))
        distance = gap.norm(dim=1).quantile(self.quantile, interpolation="lower")
        error = distance / end.square().sum(1).mean().sqrt()
        return error.item(), counter.nfe.mean().item()


def mixture(name: str, count: int, quantile: float) -> Case:
    """``count`` points of a target with noise at t_max, solved in float64."""
    model = (TARGETS | OTHERS)[name]()
    generator = torch.Generator().manual_seed(0)
    data = model.draw(count, generator)
    noise = torch.randn(data.shape, generator=generator, dtype=data.dtype)
    start = model.sde.perturb(data, torch.tensor(model.sde.t_max, dtype=torch.float64), noise)
    end = sample(model, REFERENCE, start, make_grid(model.sde, "log_snr", 1), denoise=False)
    return Case(model, start, end, lambda count: model, quantile)


def trained(folder: Path, count: int, quantile: float) -> Case:
    """``count`` points of the prior for the model of a run folder, its classes in turn; solved with 500 steps of order
    3 in its own precision."""
    denoiser = load_model(folder / "model.safetensors", "denoiser").eval().requires_grad_(False)

    def labeled(rows: int) -> ScoreModel:
        if not denoiser.num_classes:
            return denoiser
        return ClassifierFree(denoiser, torch.arange(rows) % denoiser.num_classes, 1.0)

    model = labeled(count)
    start = model.sde.prior_std() * SeededNoise(sample_seeds(0, count))(torch.empty(count, *denoiser.event_shape))
    end = sample(model, ExponentialAdams(3, "v"), start, make_grid(model.sde, "log_snr", 500), denoise=False)
    return Case(model, start, end, labeled, quantile)
