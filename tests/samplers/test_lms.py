"""Linear multistep: k-diffusion's formula with its coefficients by adaptive quadrature, and the step to zero."""

import pytest
import torch
from scipy.integrate import quad

from samplers import LMS, sample
from samplers.grid import make_grid
from sde import VESDE, VPSDE
from tests.oracles.exact import GaussianMixture

MODES = torch.tensor([[-1.5, 0.0], [1.0, 1.0], [0.5, -1.0]], dtype=torch.float64)


def coefficient(levels, i, j, order):
    """The integral from levels[i] to levels[i + 1] of the Lagrange polynomial that is 1 at levels[i - j] and 0 at the
    other ones of the last ``order``."""

    def basis(r):
        product = 1.0
        for k in range(order):
            if k != j:
                product *= (r - levels[i - k]) / (levels[i - j] - levels[i - k])
        return product

    return quad(basis, levels[i], levels[i + 1], epsabs=0, epsrel=1e-12)[0]


@pytest.mark.parametrize("process", [VESDE(), VPSDE()], ids=["ve", "vp"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("to_zero", [True, False])
def test_lms_in_its_own_notation(process, order, to_zero):
    """y = x / alpha and d = (y - D) / r at every level r; y <- y + sum_j c_j d_{i-j}, and so once more to r = 0."""
    model = GaussianMixture(process, MODES, 0.2)
    times = make_grid(process, "karras", 6)
    x = torch.tensor([[1.7, -0.4], [0.2, 0.9]], dtype=torch.float64) * process.prior_std()
    levels = [*process.noise_level(times).tolist(), 0.0]
    y, slopes = x / process.alpha(times[0]), []
    for i, t in enumerate(times):
        slopes.insert(0, (y - model(y * process.alpha(t), t)) / levels[i])
        count = min(order, len(slopes))
        if i == len(times) - 1 and not to_zero:
            count = 1
        y = y + sum(coefficient(levels, i, j, count) * slopes[j] for j in range(count))
    found = sample(model, LMS(order, to_zero), x, times)
    torch.testing.assert_close(found, y, rtol=1e-9, atol=1e-9)


def test_the_step_to_zero_is_more_exact_than_the_posterior_mean():
    """To data on the flow: of a Gaussian with deviation d, x_0 = x d / sqrt(d^2 + r^2)."""
    process = VESDE(0.01, 50.0)
    model = GaussianMixture(process, torch.zeros(1, 1, dtype=torch.float64), 0.5)
    times = make_grid(process, "karras", 40)
    end = process.t_of_noise_level(torch.tensor(0.2, dtype=torch.float64))
    times = torch.cat([times[times > end], end[None]])
    x = torch.ones(1, 1, dtype=torch.float64) * 50
    exact = 50 * 0.5 / (0.5**2 + 50**2) ** 0.5
    errors = [abs(sample(model, LMS(to_zero=zero), x, times).item() - exact) for zero in (True, False)]
    assert errors[0] < 0.05 * errors[1]


def test_orders_that_it_has_not():
    with pytest.raises(ValueError, match="solver_order = 5: needs an integer from 1 to 4"):
        LMS(5)
