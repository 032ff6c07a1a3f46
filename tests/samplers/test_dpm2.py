"""DPM-Solver-2 in the notation of its paper."""

import math

import pytest
import torch

from samplers import DPMSolver2
from sde import VESDE, VPSDE
from tests.oracles.exact import GaussianMixture

MODES = torch.tensor([[-1.5, 0.0], [1.0, 1.0], [0.5, -1.0]], dtype=torch.float64)


@pytest.mark.parametrize("process", [VESDE(), VPSDE()], ids=["ve", "vp"])
def test_dpm2_in_its_own_notation(process):
    """Lu et al. 2022a, algorithm 1: with lambda = log(alpha / sigma) and h its step, u = (a_m / a_t) x - s_m (e^(h/2) -
    1) n(x, t) at lambda_t + h / 2, and x_s = (a_s / a_t) x - s_s (e^h - 1) n(u, m)."""
    model = GaussianMixture(process, MODES, 0.2)
    t, s = (process.t_of_noise_level(torch.tensor(r, dtype=torch.float64)) for r in (2.0, 0.7))
    m = process.t_of_noise_level(torch.tensor(math.sqrt(2.0 * 0.7), dtype=torch.float64))
    x = torch.tensor([[1.7, -0.4], [0.2, 0.9]], dtype=torch.float64)
    (a, _), (a_m, s_m), (a_s, s_s) = ((process.alpha(u), process.sigma(u)) for u in (t, m, s))
    h = math.log(2.0 / 0.7)
    u = a_m / a * x - s_m * math.expm1(h / 2) * model.noise(x, t)
    expected = a_s / a * x - s_s * math.expm1(h) * model.noise(u, m)
    found, carry = DPMSolver2().step(model, x, t, s, None, "as it was")
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert carry == "as it was"
