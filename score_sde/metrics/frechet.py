"""The Frechet distance of the Gaussians that have the moments of two sets."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sde.device import wide

ITEMS_AT_ONCE = 4096


@dataclass(frozen=True)
class Moments:
    """Of ``count`` items: their ``mean`` (d,) and ``covariance`` (d, d), normalized by count - 1; float64."""

    count: int
    mean: Tensor
    covariance: Tensor

    @classmethod
    def from_features(cls, x: Tensor) -> "Moments":
        """The moments of x (n, d), n at least 2, merged part by part (Chan, Golub and LeVeque 1983).

        Raises ValueError for other shapes, fewer items, and values that are not finite.
        """
        if x.ndim != 2 or len(x) < 2:
            raise ValueError(f"x has shape {tuple(x.shape)}: needs (n, d) with at least 2 items")
        count, mean = 0, wide(x[:0]).new_zeros(x.shape[1])
        scatter = torch.outer(mean, mean)
        for part in x.split(ITEMS_AT_ONCE):
            part = wide(part)
            own, total = part.mean(0), count + len(part)
            change, centerd = own - mean, part - own
            mean = mean + change * (len(part) / total)
            scatter = scatter + centerd.T @ centerd + torch.outer(change, change) * (count * len(part) / total)
            count = total
        if not scatter.isfinite().all():
            raise ValueError("x holds NaN or infinite features: remove or repair those items")
        return cls(count, mean, scatter / (count - 1))


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """The squared Frechet distance of the Gaussians with the moments of x (n, d) and y (m, d), in features squared; on
    features of Inception the FID of Heusel et al. 2017.

    With the plain moments of finitely many items it is biased upwards by a share of about 1/n.
    """
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(f"x has {tuple(x.shape[1:])} features and y has {tuple(y.shape[1:])}: needs the same")
    first, second = Moments.from_features(x), Moments.from_features(y)
    return gaussian_distance(first.mean, first.covariance, second.mean, second.covariance)


def gaussian_distance(mean_x: Tensor, cov_x: Tensor, mean_y: Tensor, cov_y: Tensor) -> float:
    """|m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x^1/2 C_y C_x^1/2)^1/2) (Dowson and Landau 1982), the squared
    2-Wasserstein distance of two Gaussians with means (d,) and covariances (d, d), singular ones too.

    The trace is the least |A - B Q|^2 over orthogonal Q, for any A A^T = C_x and B B^T = C_y (Bhatia, Jain and Lim
    2019, theorem 1): as a sum of squares it is never negative, and small distances keep their digits.
    """
    a, b = _factor(cov_x), _factor(cov_y)
    u, _, vh = torch.linalg.svd(a.T @ b)
    rotation = vh.T @ u.T
    return ((mean_x - mean_y).double().square().sum() + (a - b @ rotation).square().sum()).item()


def _factor(covariance: Tensor) -> Tensor:
    """A with A A^T the covariance. Eigenvalues that rounding alone explains count as zero: their roots would not."""
    values, vectors = torch.linalg.eigh(covariance.double())
    least = len(values) * torch.finfo(torch.float64).eps * values[-1].clamp(min=0)
    return vectors * torch.where(values > least, values, 0).sqrt()
