"""A linear Gaussian pair of encoder and decoder, whose evidence and posterior are closed forms."""

import math

import torch
from torch import Tensor

from sde import SDE, Transform
from sde.autoencoder import Autoencoder, LatentTransform
from tests.oracles.exact import Gaussian

DIM, LATENTS = 5, 2


class GaussianPair(Autoencoder):
    """w ~ N(center, diag(prior_std^2)), y = W (w - center) + offset + N(0, noise^2), the columns of W orthogonal: the
    posterior of w is Gaussian with independent entries. The encoder is that posterior, ``off`` away from it and with
    ``wider`` times its standard deviation."""

    def __init__(self, prior_std: float = 1.0, off: float = 0.0, wider: float = 1.0, noise: float = 0.4) -> None:
        super().__init__((DIM,), (LATENTS,))
        generator = torch.Generator().manual_seed(3)
        basis = torch.linalg.qr(torch.randn(DIM, LATENTS, generator=generator, dtype=torch.float64))[0]
        self.center, self.scale = torch.tensor([0.7, -1.1]).double(), torch.tensor([1.5, 0.6]).double()
        self.register_buffer("weight", basis * torch.tensor([1.3, 0.5]).double())
        self.offset = torch.linspace(-1, 1, DIM, dtype=torch.float64)
        self.prior_std, self.off, self.wider, self.noise = prior_std * self.scale, off, wider, noise
        precision = self.prior_std**-2 + self.weight.square().sum(0) / noise**2
        self.posterior_std = precision.rsqrt()
        self.double()
        self.noise_std.fill_(noise)

    def posterior_mean(self, y: Tensor) -> Tensor:
        return self.center + self.posterior_std**2 * ((y - self.offset) @ self.weight) / self.noise**2

    def encode(self, y: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.posterior_mean(y) + self.off * self.posterior_std
        return mean, (self.wider * self.posterior_std).expand_as(mean)

    def decode(self, z: Tensor) -> Tensor:
        return (z - self.center) @ self.weight.T + self.offset

    def model(self, sde: SDE, prior_std: float = 1.0) -> Gaussian:
        """The exact score model of latents, which are (w - center) / scale, over data units x = 0.3 + 2 y."""
        transform = LatentTransform(self, Transform((0.3,), (2.0,))).double()
        transform.shift.copy_(self.center)
        transform.scale.copy_(self.scale)
        return Gaussian(sde, torch.zeros(LATENTS, dtype=torch.float64), prior_std, transform=transform)

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x) (B,): N(offset, W diag(prior_std^2) W^T + noise^2 I), to data units."""
        covariance = self.weight * self.prior_std**2 @ self.weight.T + self.noise**2 * torch.eye(DIM).double()
        law = torch.distributions.MultivariateNormal(self.offset, covariance)
        return law.log_prob((x - 0.3) / 2) - DIM * math.log(2)

    @property
    def divergence(self) -> float:
        """KL(q(w | y) || p(w | y)), the same for every y."""
        return LATENTS * (0.5 * (self.wider**2 + self.off**2 - 1) - math.log(self.wider))
