"""Flow maps in closed form: of Gaussian data the probability flow is linear."""

import torch
from torch import Tensor

from sde import SDE
from sde.model.score import StateModel
from sde.process.coefficients import expand


class GaussianFlowMap(StateModel):
    """Data N(mean, covariance), of any event shape, their entries in order: along each axis of the covariance
    x_s = alpha_s m + std_s / std_t (x - alpha_t m) with std_u^2 = alpha_u^2 value + sigma_u^2."""

    def __init__(self, sde: SDE, mean: Tensor, covariance: Tensor, transform=None) -> None:
        super().__init__(sde, transform)
        values, vectors = torch.linalg.eigh(covariance)
        self.register_buffer("mean", mean)
        self.register_buffer("values", values)
        self.register_buffer("vectors", vectors)

    def stds(self, t: Tensor, flat: Tensor) -> Tensor:
        """The standard deviations along the axes at t, (dim,) or (B, dim)."""
        alpha, sigma = expand(self.sde.alpha(t), flat), expand(self.sde.sigma(t), flat)
        return (alpha**2 * self.values + sigma**2).sqrt()

    def forward(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        flat = x.flatten(1)
        start, end = (expand(self.sde.alpha(u), flat) * self.mean for u in (t, s))
        ratio = self.stds(s, flat) / self.stds(t, flat)
        return (end + ((flat - start) @ self.vectors * ratio) @ self.vectors.T).view_as(x)

    def jump(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return self(x, t, s)

    def mean_denoised(self, x: Tensor, t: Tensor, s: Tensor, cond=None) -> Tensor:
        """M of x_s = (sigma_s / sigma_t) x + (alpha_s - alpha_t sigma_s / sigma_t) M; s < t."""
        keep = expand(self.sde.sigma(s) / self.sde.sigma(t), x)
        change = expand(self.sde.alpha(s) - self.sde.alpha(t) * self.sde.sigma(s) / self.sde.sigma(t), x)
        return (self(x, t, s) - keep * x) / change
