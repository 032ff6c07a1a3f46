"""A flow map of Gaussian data with coefficients to learn, exact where they are zero, and expectations over the data."""

import torch
from torch import Tensor, nn

from samplers import SAMPLERS
from sde import SDE
from sde.distillation import Lesson, SolvedTeacher
from sde.process.coefficients import expand
from sde.training.loss import BatchNoise
from tests.oracles.exact import Gaussian

MEAN, STD = 0.7, 0.5


class PlantedFlowMap(nn.Module):
    """Of data N(0.7, 0.5^2): x_s = A x + B M with M = (the exact one) + (offset + slope x) rho, rho = sigma / (alpha +
    sigma) at t. Both coefficients are parameters, 0 unless told otherwise."""

    sigma_data = (MEAN**2 + STD**2) ** 0.5

    def __init__(self, sde: SDE, offset: float = 0.0, slope: float = 0.0) -> None:
        super().__init__()
        self.sde = sde
        self.gaussian = Gaussian(sde, torch.tensor([MEAN], dtype=torch.float64), STD)
        self.offset = nn.Parameter(torch.tensor(offset, dtype=torch.float64))
        self.slope = nn.Parameter(torch.tensor(slope, dtype=torch.float64))

    def factors(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        keep = self.sde.sigma(s) / self.sde.sigma(t)
        return keep, self.sde.alpha(s) - self.sde.alpha(t) * keep

    def mean_denoised(self, x: Tensor, t: Tensor, s: Tensor, cond=None) -> Tensor:
        keep, change = (expand(factor, x) for factor in self.factors(t, s))
        still = expand((s >= t).double(), x) > 0
        jumped = (self._flow(x, t, s) - keep * x) / torch.where(still, torch.ones_like(x), change)
        alpha, sigma = (expand(value, x) for value in (self.sde.alpha(t), self.sde.sigma(t)))
        denoised = MEAN + alpha * STD**2 / ((alpha * STD) ** 2 + sigma**2) * (x - alpha * MEAN)
        return torch.where(still, denoised, jumped) + (self.offset + self.slope * x) * sigma / (alpha + sigma)

    def _flow(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        (a, v), (b, w) = (
            (expand(self.sde.alpha(u), x), expand((self.sde.alpha(u) * STD) ** 2 + self.sde.sigma(u) ** 2, x))
            for u in (t, s)
        )
        return b * MEAN + (w / v).sqrt() * (x - a * MEAN)

    def forward(self, x: Tensor, t: Tensor, s: Tensor, cond=None) -> Tensor:
        keep, change = (expand(factor, x) for factor in self.factors(t, s))
        return keep * x + change * self.mean_denoised(x, t, s, cond)

    def gradient(self, loss: Tensor) -> float:
        """The norm of the loss's gradient by both coefficients."""
        found = torch.autograd.grad(loss, [self.offset, self.slope])
        return torch.stack(found).norm().item()


def quadrature() -> tuple[Tensor, Tensor, Tensor]:
    """Data x_0 (9, 1), noise z (9, 1) and weights (9,) that average every polynomial of both up to the fifth degree as
    their laws do: three nodes of Gauss and Hermite for each."""
    nodes = torch.tensor([-(3**0.5), 0.0, 3**0.5], dtype=torch.float64)
    weights = torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=torch.float64)
    first, second = torch.cartesian_prod(nodes, nodes).unbind(1)
    return MEAN + STD * first[:, None], second[:, None], torch.cartesian_prod(weights, weights).prod(1)


X0, Z, WEIGHTS = quadrature()
WRONG = {"offset": {"offset": 1.0}, "slope": {"slope": 1.0}}
"""Coefficients that are not those of the exact map."""


class ExactTeacher:
    """The exact flow as a teacher."""

    def __init__(self, sde: SDE) -> None:
        self.map = PlantedFlowMap(sde)

    def solve(self, x: Tensor, t: Tensor, s: Tensor, cond=None, sizes=None) -> Tensor:
        return self.map(x, t, s).detach()

    def denoised(self, x: Tensor, t: Tensor, cond=None, sizes=None) -> Tensor:
        return self.map.mean_denoised(x, t, t).detach()


def solved_teacher(sde: SDE, name: str) -> SolvedTeacher:
    """The exact score model, solved by a sampler."""
    gaussian = PlantedFlowMap(sde).gaussian
    return SolvedTeacher(lambda cond: gaussian, SAMPLERS[name]())


def time_of(sde: SDE, noise_level: float) -> float:
    """The time of a noise level."""
    return sde.t_of_noise_level(torch.tensor(noise_level, dtype=torch.float64)).item()


def expected_gradient(method, student: PlantedFlowMap, t: float, progress: float = 0.0, **options) -> float:
    """The norm of the gradient of a method's expected loss at time t."""
    losses = method.loss(student, X0, None, draws_at(t, Z), Lesson(progress, **options))
    return student.gradient((WEIGHTS * losses).sum())


def draws_at(t: float, z: Tensor) -> BatchNoise:
    """The random numbers of a batch all of whose times are t."""
    times = torch.full((len(z),), t, dtype=torch.float64)
    return BatchNoise(times, torch.ones_like(times), torch.rand(len(z)), z, torch.arange(len(z)))
