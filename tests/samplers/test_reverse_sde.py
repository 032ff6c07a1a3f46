"""The adaptive solver of the reverse SDE: its law, its equation, its path, each sample alone."""

import math

import numpy as np
import pytest
import torch

from samplers import GRIDS, SeededNoise, sample
from samplers.reverse_sde import ReverseSDE, _System
from sde import VPSDE, ScoreModel
from sde.process.base import derivative
from tests.oracles.affine import MEAN, STD, gaussian
from tests.oracles.exact import Gaussian
from tests.oracles.processes import PROCESSES


@pytest.mark.parametrize(("process", "stop"), [("vp", 1), *((name, 2) for name in PROCESSES)], indirect=["process"])
def test_the_adaptive_solver_ends_at_the_exact_law(process, stop):
    """Half-way, and at the data."""
    dim = 4000
    model = Gaussian(process, torch.full((dim,), MEAN, dtype=torch.float64), STD)
    x = SeededNoise([1])(torch.empty(1, dim, dtype=torch.float64)) * process.prior_std()
    times = GRIDS["log_snr"](process, 2)[[0, stop]]
    state = torch.get_rng_state()
    end = sample(model, ReverseSDE(0.03, 0.03), x, times, SeededNoise([2]), denoise=False)
    assert torch.equal(state, torch.get_rng_state())
    alpha = process.alpha(times[-1]).item()
    std = math.sqrt((alpha * STD) ** 2 + process.sigma(times[-1]).item() ** 2)
    assert end.mean().item() == pytest.approx(alpha * MEAN, abs=4 * std / math.sqrt(dim))
    assert end.std().item() == pytest.approx(std, rel=4 / math.sqrt(2 * dim))


def test_the_adaptive_solvers_equation(process):
    """dv of v = x / m, m^2 = alpha^2 + sigma^2, in log(alpha / sigma), from dx = (f x - g^2 score) dt + g dw in t."""
    model = gaussian(process)

    def m(t):
        return (process.alpha(t) ** 2 + process.sigma(t) ** 2).sqrt()

    for t in GRIDS["log_snr"](process, 6)[1:-1]:
        u, x = 0.5 * process.log_snr(t), torch.full((1, 1), 0.4, dtype=torch.float64)
        g2, rate = process.g2(t), -2 * process.sigma(t) ** 2 / process.g2(t)
        table = np.array([u - 1, u + 1]), np.array([t, t])
        system = _System(model, x.device, torch.ones(1, dtype=torch.bool), table, 0, 100)
        drift = (process.f(t) * x - g2 * model.score(x, t)) / m(t) - x * derivative(m, t) / m(t) ** 2
        torch.testing.assert_close(system.f(u, x / m(t)), drift * rate, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(system.g(u, x).squeeze(0) ** 2, -(g2 * rate / m(t) ** 2).view(1, 1))


def test_the_adaptive_solver_follows_its_path():
    """A tenth of the tolerance moves a sample a little, another path moves it much."""
    model, times = gaussian(VPSDE()), GRIDS["log_snr"](VPSDE(), 1)
    x = torch.tensor([[-1.0], [0.2], [1.3]], dtype=torch.float64)
    ends = [
        sample(model, ReverseSDE(tol, tol), x, times, SeededNoise([seed] * 3))
        for tol, seed in ((1e-2, 1), (1e-3, 1), (1e-2, 7))
    ]
    assert ends[0].shape == x.shape
    assert (ends[0] - ends[1]).abs().max() < 0.05 < (ends[0] - ends[2]).abs().max()


class PerRow(ScoreModel):
    """The posterior mean is a number of each sample's own."""

    def __init__(self, sde, values):
        super().__init__(sde)
        self.values = values

    def forward(self, x, t):
        return self.values.expand_as(x)

    def rows(self, index):
        return PerRow(self.sde, self.values[index])


def test_the_adaptive_solver_is_alone_with_each_sample():
    values, times = torch.tensor([[3.0], [-2.0], [0.5]]), GRIDS["log_snr"](VPSDE(), 2)
    model, x = PerRow(VPSDE(), values), torch.tensor([[9.0], [0.1], [0.2]])
    together = sample(model, ReverseSDE(), x, times, SeededNoise([1, 2, 3]), denoise=False)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together, values, rtol=0, atol=0.1)
    for i in range(3):
        alone = sample(model.rows([i]), ReverseSDE(), x[i : i + 1], times, SeededNoise([i + 1]), denoise=False)
        torch.testing.assert_close(alone, together[i : i + 1], rtol=0, atol=1e-5)


def test_the_adaptive_solver_gives_up_with_a_sentence():
    times, x = GRIDS["log_snr"](VPSDE(), 1), torch.ones(2, 1, dtype=torch.float64)
    with pytest.raises(ArithmeticError, match=r"sample 0 took 20 calls .* loosen rtol and atol, or raise max_nfe = 20"):
        sample(gaussian(VPSDE()), ReverseSDE(max_nfe=20), x, times, SeededNoise([1, 2]))
    model = PerRow(VPSDE(), torch.tensor([[0.0], [math.nan]]))
    with pytest.raises(FloatingPointError, match=r"sample 1 became non-finite at t = 1 \(sigma"):
        sample(model, ReverseSDE(), x, times, SeededNoise([1, 2]))
