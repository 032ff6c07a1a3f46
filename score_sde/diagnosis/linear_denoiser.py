"""The best linear denoiser of some items: what a network must do better than."""

import torch
from torch import Tensor

from sde.model.score import ScoreModel
from sde.process.base import SDE
from sde.process.coefficients import expand

SHRINKAGES = (0.0, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.2, 0.4, 0.7, 1.0)
"""Shares of the covariance that are white, one of which is chosen."""


class LinearDenoiser(ScoreModel):
    """The Wiener filter of items (n, *event) in model units,

        D(x, t) = m + V diag(g(l')) V^T (x - alpha m) + g(r v) (1 - V V^T) (x - alpha m),
        g(l) = alpha l / (alpha^2 l + sigma^2),    l' = (1 - r) l + r v,

    m their mean, V and l eigenvectors and eigenvalues of their covariance (division by n), v the mean eigenvalue over
    all dimensions: the posterior mean of Gaussian data with the covariance (1 - r) C + r v. For many items r is 0, and
    it is of all functions linear in x the one with the least error for any data. Items fewer than dimensions span a
    part of them, and take all others for certain, which ``shrinkage`` r mends. ``sigma_data`` is that of the errors it
    is compared by.
    """

    num_classes = None
    mean: Tensor
    values: Tensor
    directions: Tensor
    rest: Tensor

    def __init__(self, sde: SDE, items: Tensor, sigma_data: float, shrinkage: float = 0.0) -> None:
        super().__init__(sde)
        self.sigma_data, self.shrinkage = sigma_data, shrinkage
        mean, values, directions, average = _covariance(items.flatten(1).cpu().double())
        shrunk = (1 - shrinkage) * values + shrinkage * average
        found = {"mean": mean, "values": shrunk, "directions": directions, "rest": shrinkage * average}
        for name, value in found.items():
            self.register_buffer(name, value.to(items))

    @classmethod
    def fitted(cls, sde: SDE, items: Tensor, sigma_data: float, t: Tensor) -> "LinearDenoiser":
        """With that one of SHRINKAGES whose filter of every other item has the least error, in the mean over the times
        ``t`` (k,), of the items in between: (1 / sigma_data^2 + alpha^2 / sigma^2) E |D - x_0|^2 in closed form. With
        1 it is the filter of white noise, so that it is never worse than that."""
        flat = items.flatten(1).cpu().double()
        mean, values, directions, average = _covariance(flat[::2])
        centered = flat[1::2] - mean
        squares = (centered @ directions.T).square().mean(0)
        rest = (centered.square().sum(1).mean() - squares.sum()).clamp(min=0)
        count = flat.shape[1] - len(values)
        losses = []
        for share in SHRINKAGES:
            shrunk = (1 - share) * values + share * average
            loss = 0.0
            for alpha, sigma in zip(sde.alpha(t).tolist(), sde.sigma(t).tolist(), strict=True):
                gain, other = (alpha * one / (alpha**2 * one + sigma**2) for one in (shrunk, share * average))
                # E |D - x_0|^2 over the noise, direction by direction.
                error = ((1 - alpha * gain) ** 2 * squares + (sigma * gain) ** 2).sum()
                error += (1 - alpha * other) ** 2 * rest + count * (sigma * other) ** 2
                loss += ((1 / sigma_data**2 + (alpha / sigma) ** 2) * error).item()
            losses.append(loss)
        best = SHRINKAGES[min(range(len(losses)), key=losses.__getitem__)]
        return cls(sde, items, sigma_data, best)

    def forward(self, x: Tensor, t: Tensor, cond: None = None) -> Tensor:
        flat = x.flatten(1)
        alpha, sigma = expand(self.sde.alpha(t), flat), expand(self.sde.sigma(t), flat)
        gain, rest = (alpha * one / (alpha**2 * one + sigma**2) for one in (self.values, self.rest))
        centered = flat - alpha * self.mean
        inside = centered @ self.directions.T
        return (self.mean + ((gain - rest) * inside) @ self.directions + rest * centered).view_as(x)


def _covariance(flat: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of items (n, d): mean (d,), eigenvalues (k,) and eigenvectors (k, d) of their covariance, k the smaller of n and
    d, and the mean eigenvalue () over all d."""
    mean = flat.mean(0)
    _, singular, directions = torch.linalg.svd(flat - mean, full_matrices=False)
    values = singular**2 / len(flat)
    return mean, values, directions, values.sum() / flat.shape[1]
