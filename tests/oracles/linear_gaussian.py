"""A linear inverse problem with Gaussian data, whose posterior is known in closed form."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sde import SDE, ScoreModel, Transform
from sde.inverse.operators import CompressedSensing, LinearOperator, Mask
from sde.process.coefficients import expand

DIM, OBSERVED = 16, 8


class FullGaussian(ScoreModel):
    """Data N(mean, covariance) in data units, of any event shape, their entries in order: D = m + a C (a^2 C + s^2)^-1
    (x - a m)."""

    def __init__(self, sde: SDE, mean: Tensor, covariance: Tensor, transform: Transform | None = None) -> None:
        super().__init__(sde, transform)
        scale = self.transform.decode(torch.ones_like(mean)[None]) - self.transform.decode(torch.zeros_like(mean)[None])
        self.register_buffer("mean", self.transform.encode(mean[None])[0])
        values, vectors = torch.linalg.eigh(covariance / (scale.T * scale))
        self.register_buffer("values", values)
        self.register_buffer("vectors", vectors)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        flat = x.flatten(1)
        alpha, sigma = expand(self.sde.alpha(t), flat), expand(self.sde.sigma(t), flat)
        gain = alpha * self.values / (alpha**2 * self.values + sigma**2)
        return (self.mean + ((flat - alpha * self.mean) @ self.vectors * gain) @ self.vectors.T).view_as(x)


@dataclass
class Problem:
    """y (1, 8) = A x + N(0, sigma_y^2 I) of one x from N(mean, covariance), and the posterior of x given y."""

    operator: LinearOperator
    y: Tensor
    sigma_y: float
    mean: Tensor
    covariance: Tensor
    posterior_mean: Tensor
    posterior_covariance: Tensor
    transform: Transform

    def prior(self, sde: SDE) -> FullGaussian:
        return FullGaussian(sde, self.mean, self.covariance, self.transform)

    def posterior(self, sde: SDE) -> FullGaussian:
        return FullGaussian(sde, self.posterior_mean, self.posterior_covariance, self.transform)

    def errors(self, x: Tensor) -> tuple[float, float]:
        """Of samples x (n, 16) in data units: |mean - true mean| relative to the root of the posterior's trace, and the
        Frobenius norm of the covariance's error relative to that of the posterior's."""
        off = (x.mean(0) - self.posterior_mean).norm() / self.posterior_covariance.trace().sqrt()
        spread = torch.cov(x.T, correction=0) - self.posterior_covariance
        return off.item(), (spread.norm() / self.posterior_covariance.norm()).item()


def problem(
    kind: str = "projection",
    sigma_y: float = 0.1,
    std: float | None = None,
    transform: Transform | None = None,
) -> Problem:
    """Random mean and covariance, or std^2 I; ``kind`` is "projection", random with 8 rows, or "mask", 8 of 16."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    root = normal(DIM, DIM) / DIM**0.5
    covariance = root @ root.T + 0.05 * torch.eye(DIM) if std is None else std**2 * torch.eye(DIM).double()
    mean = 0.5 * normal(DIM)
    operator = Mask(torch.arange(DIM) % 2 == 0, (DIM,)) if kind == "mask" else CompressedSensing((DIM,), OBSERVED)
    matrix = operator(torch.eye(DIM).double()).T
    x = mean + torch.linalg.cholesky(covariance) @ normal(DIM)
    y = matrix @ x + sigma_y * normal(OBSERVED)
    gain = covariance @ matrix.T @ torch.linalg.inv(matrix @ covariance @ matrix.T + sigma_y**2 * torch.eye(OBSERVED))
    posterior = mean + gain @ (y - matrix @ mean), covariance - gain @ matrix @ covariance
    return Problem(operator, y[None], sigma_y, mean, covariance, *posterior, transform or Transform())


def unit_points() -> Tensor:
    """(32, 16) points of mean zero and unit covariance, exactly: what an affine map makes of them has its moments."""
    basis = DIM**0.5 * torch.eye(DIM, dtype=torch.float64)
    return torch.cat([basis, -basis])
