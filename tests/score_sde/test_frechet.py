"""The Frechet distance against closed forms and other ways to compute it."""

import math

import numpy as np
import pytest
import torch
from mpmath import mp
from scipy.linalg import sqrtm

from score_sde.metrics.frechet import Moments, frechet_distance, gaussian_distance


def covariance(d, seed, rank=None):
    factor = torch.randn(d, rank or d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return factor @ factor.T


def with_moments(mean, cov, n, seed):
    """n items whose mean and covariance are these, to rounding."""
    x = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T @ x / (n - 1)), x.T, upper=False).T
    values, vectors = torch.linalg.eigh(cov)
    return mean + white @ (vectors * values.clamp(min=0).sqrt()).T


def by_digits(mean_x, cov_x, mean_y, cov_y):
    """The formula as it stands, in 50 digits."""
    with mp.workdps(50):
        a, b = (mp.matrix(cov.tolist()) for cov in (cov_x, cov_y))
        values, vectors = mp.eigsy(a)
        root = vectors * mp.diag([mp.sqrt(max(v, 0)) for v in values]) * vectors.T
        inner = mp.eigsy(root * b * root, eigvals_only=True)
        trace = sum(a[i, i] + b[i, i] for i in range(a.rows)) - 2 * sum(mp.sqrt(max(v, 0)) for v in inner)
        return float(
            trace + sum((mp.mpf(p) - mp.mpf(q)) ** 2 for p, q in zip(mean_x.tolist(), mean_y.tolist(), strict=True))
        )


@pytest.mark.parametrize("d", [1, 2, 7, 40])
def test_items_with_exact_moments(d):
    mean_x, mean_y = torch.linspace(-1, 1, d).double(), torch.linspace(0, 3, d).double()
    a, b = covariance(d, 1), covariance(d, 2)
    root = sqrtm(a.numpy())
    expected = (mean_x - mean_y).square().sum().item() + np.trace(
        (a + b).numpy() - 2 * sqrtm(root @ b.numpy() @ root).real
    ).item()
    found = frechet_distance(with_moments(mean_x, a, 5000, 3), with_moments(mean_y, b, 300, 4))
    assert found == pytest.approx(expected, rel=1e-8)


def test_commuting_covariances():
    axes = torch.linalg.qr(covariance(5, 1)).Q
    p, q = torch.tensor([1e-12, 0.1, 1.0, 3.0, 1e4]).double(), torch.tensor([2.0, 0.0, 1.0, 5.0, 1e-8]).double()
    mean = torch.arange(5).double()
    expected = 3 * 30 + (p.sqrt() - q.sqrt()).square().sum().item()
    found = gaussian_distance(mean, (axes * p) @ axes.T, mean * (1 + 3**0.5), (axes * q) @ axes.T)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_singular_covariances(rank):
    mean, a, b = torch.zeros(6).double(), covariance(6, 1, rank), covariance(6, 2, 2)
    assert gaussian_distance(mean, a, mean, b) == pytest.approx(by_digits(mean, a, mean, b), rel=1e-7)
    u, v = torch.randn(2, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected = (u.square().sum() + v.square().sum() - 2 * (u @ v).abs()).item()
    assert gaussian_distance(mean, torch.outer(u, u), mean, torch.outer(v, v)) == pytest.approx(expected, rel=1e-12)
    apart = v - u * (u @ v) / (u @ u)
    expected = (u.square().sum() + apart.square().sum()).item()
    assert gaussian_distance(mean, torch.outer(u, u), mean, torch.outer(apart, apart)) == pytest.approx(
        expected, rel=1e-12
    )
    nothing = torch.zeros(6, 6).double()
    assert gaussian_distance(mean, a, mean, nothing) == pytest.approx(a.trace().item(), rel=1e-12)


@pytest.mark.parametrize("change", [1e-2, 1e-5])
def test_small_distances_keep_their_digits(change):
    a = covariance(12, 1)
    mean = torch.zeros(12).double()
    expected = a.trace().item() * (math.sqrt(1 + change) - 1) ** 2
    assert gaussian_distance(mean, a, mean, a * (1 + change)) == pytest.approx(expected, rel=1e-6)
    assert 0 <= gaussian_distance(mean, a, mean, a) < 1e-25


def test_moments_are_merged_exactly():
    x = torch.randn(10_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1e-3 + 1e3
    moments = Moments.from_features(x)
    assert moments.count == 10_000
    np.testing.assert_allclose(moments.mean, x.numpy().mean(0), rtol=1e-14)
    np.testing.assert_allclose(moments.covariance, np.cov(x.numpy().T), rtol=1e-8, atol=1e-15)
    single = Moments.from_features(x.float()[:5])
    assert single.covariance.dtype == torch.float64


def test_refusals():
    x = torch.zeros(10, 3).double()
    with pytest.raises(ValueError, match="at least 2 items"):
        frechet_distance(x[:1], x)
    with pytest.raises(ValueError, match="needs the same"):
        frechet_distance(x, torch.zeros(10, 4))
    with pytest.raises(ValueError, match="NaN or infinite"):
        frechet_distance(x, x.fill_(torch.nan))
