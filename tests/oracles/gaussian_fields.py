"""Inverse problems with correlated Gaussian data of any event shape, whose posterior and scores are closed forms."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sde import SDE
from sde.inverse.operators import Blur, CompressedSensing, LinearOperator, Mask, SuperResolution
from tests.oracles.linear_gaussian import FullGaussian

LENGTH, SIDE = 96, 12


def series_covariance(length: int = LENGTH) -> Tensor:
    """A stationary series: 0.5 exp(-lag / 20) + 0.45 cos(2 pi lag / 24), and 0.05 more at lag 0."""
    lag = (torch.arange(length)[:, None] - torch.arange(length)).abs().double()
    return 0.5 * torch.exp(-lag / 20) + 0.45 * torch.cos(2 * math.pi * lag / 24) + 0.05 * torch.eye(length)


def image_covariance(side: int = SIDE, reach: float = 3.0) -> Tensor:
    """A square image: 0.95 exp(-distance / reach), and 0.05 more at distance 0."""
    place = torch.cartesian_prod(torch.arange(side), torch.arange(side)).double()
    return 0.95 * torch.exp(-torch.cdist(place, place) / reach) + 0.05 * torch.eye(side**2)


@dataclass
class FieldProblem:
    """Items from N(0, covariance), y (n, *measurement) of each with noise sigma_y, and the posterior: ``means``
    (n, dim), and the ``posterior_covariance`` (dim, dim) of all."""

    operator: LinearOperator
    y: Tensor
    sigma_y: float
    shape: tuple[int, ...]
    covariance: Tensor
    means: Tensor
    posterior_covariance: Tensor

    def prior(self, sde: SDE, dtype: torch.dtype = torch.float32) -> FullGaussian:
        return FullGaussian(sde, torch.zeros(len(self.covariance)).double(), self.covariance).to(dtype)

    @property
    def stds(self) -> Tensor:
        """Of the posterior, (dim,)."""
        return self.posterior_covariance.diagonal().clamp(min=0).sqrt()

    @property
    def unknown(self) -> Tensor:
        """The entries that the measurement leaves open, booleans (dim,)."""
        return self.stds > 1e-3

    def exact(self, count: int, generator: torch.Generator) -> Tensor:
        """Samples (n, count, dim) of the posterior."""
        values, vectors = torch.linalg.eigh(self.posterior_covariance)
        root = vectors * values.clamp(min=0).sqrt()
        z = torch.randn((len(self.means), count, len(root)), generator=generator, dtype=torch.float64)
        return self.means[:, None] + z @ root.T

    def scores(self, samples: Tensor) -> tuple[float, float]:
        """Of samples (n, k, dim), their continuous ranked probability score and the coverage of their central 80 %
        interval, in the mean over unknown entries and in expectation over truths from the posterior, in closed form."""
        k, std, normal = samples.shape[1], self.stds[self.unknown], torch.distributions.Normal(0.0, 1.0)
        x, mean = samples.double()[..., self.unknown].sort(1).values, self.means[:, None, self.unknown]
        z = (x - mean) / std
        to_truth = (std * (2 * normal.log_prob(z).exp() + z * (2 * normal.cdf(z) - 1))).mean(1)
        rank = torch.arange(k, dtype=torch.float64)[:, None]
        apart = ((2 * rank + 1 - k) * x).sum(1) / (k * (k - 1))
        low, high = torch.quantile(z, torch.tensor([0.1, 0.9], dtype=torch.float64), 1)
        return (to_truth - apart).mean().item(), (normal.cdf(high) - normal.cdf(low)).mean().item()


def field_problem(
    covariance: Tensor, shape: tuple[int, ...], operator: LinearOperator, sigma_y: float, items: int = 3
) -> FieldProblem:
    """Random items and their measurements."""
    generator = torch.Generator().manual_seed(0)
    dim = len(covariance)
    matrix = operator(torch.eye(dim, dtype=torch.float64).view(dim, *shape)).flatten(1).T
    x = torch.randn((items, dim), generator=generator, dtype=torch.float64) @ torch.linalg.cholesky(covariance).T
    y = x @ matrix.T + sigma_y * torch.randn((items, len(matrix)), generator=generator, dtype=torch.float64)
    noisy = matrix @ covariance @ matrix.T + sigma_y**2 * torch.eye(len(matrix))
    gain = torch.linalg.solve(noisy, matrix @ covariance).T
    like = operator(torch.zeros(1, *shape, dtype=torch.float64))
    posterior = covariance - gain @ matrix @ covariance
    return FieldProblem(operator, y.view(items, *like.shape[1:]), sigma_y, shape, covariance, y @ gain.T, posterior)


def field_problems() -> dict[str, FieldProblem]:
    """Masks, block means, blurs and projections of a series and of an image, by what is measured."""
    line, image = (1, LENGTH), (1, SIDE, SIDE)
    series, picture = series_covariance(), image_covariance()
    some = torch.rand(LENGTH, generator=torch.Generator().manual_seed(1)) < 0.5
    upper = torch.arange(SIDE)[:, None].expand(SIDE, SIDE) < SIDE // 2
    return {
        "series, last 24 hidden": field_problem(series, line, Mask(torch.arange(LENGTH) < 72, line), 0.0),
        "series, half hidden": field_problem(series, line, Mask(some, line), 0.0),
        "series, means of 4": field_problem(series, line, SuperResolution(4, 1), 0.0),
        "series, blur": field_problem(series, line, Blur.gaussian(3.0, 1), 0.1),
        "image, lower half hidden": field_problem(picture, image, Mask(upper, image), 0.0),
        "image, means of 2 x 2": field_problem(picture, image, SuperResolution(2), 0.0),
        "image, blur": field_problem(picture, image, Blur.gaussian(1.5), 0.1),
        "image, 40 projections": field_problem(picture, image, CompressedSensing(image, 40), 0.1),
    }
