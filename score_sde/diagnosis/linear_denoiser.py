"""The best linear denoiser of some items: what a network must do better than."""

import torch
from torch import Tensor

from sde.model.score import ScoreModel
from sde.process.base import SDE, expand


class LinearDenoiser(ScoreModel):
    """The Wiener filter of items (n, *event) in model units,

        D(x, t) = m + V diag(alpha l / (alpha^2 l + sigma^2)) V^T (x - alpha m),

    m their mean, V and l eigenvectors and eigenvalues of their covariance (division by n): the posterior mean of
    Gaussian data with these moments, and of all functions linear in x the one with the least error for any data.
    ``sigma_data`` is that of the errors it is compared by.
    """

    num_classes = None
    mean: Tensor
    values: Tensor
    directions: Tensor

    def __init__(self, sde: SDE, items: Tensor, sigma_data: float) -> None:
        super().__init__(sde)
        self.sigma_data = sigma_data
        flat = items.flatten(1).cpu().double()
        _, singular, directions = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
        for name, value in (
            ("mean", flat.mean(0)),
            ("values", singular**2 / len(flat)),
            ("directions", directions),
        ):
            self.register_buffer(name, value.to(items))

    def forward(self, x: Tensor, t: Tensor, cond: None = None) -> Tensor:
        flat = x.flatten(1)
        alpha, sigma = expand(self.sde.alpha(t), flat), expand(self.sde.sigma(t), flat)
        gain = alpha * self.values / (alpha**2 * self.values + sigma**2)
        return (self.mean + gain * ((flat - alpha * self.mean) @ self.directions.T) @ self.directions).view_as(x)
