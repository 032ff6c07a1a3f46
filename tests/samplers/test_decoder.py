"""Bounds of probabilities of quantized data: the decoder over the levels, and a model that is exact on them."""

import numpy as np
import pytest
import torch

from samplers import discrete_bound, variational_bound
from samplers.grid import make_grid
from samplers.likelihood.decoder import gaussian_log_prob, level_log_prob, start_of
from sde import VPSDE, ScoreModel, Transform
from tests.oracles.exact import Gaussian
from tests.oracles.processes import PROCESSES


class Dequantized(ScoreModel):
    """The exact posterior mean of a number distributed over the cells of ``levels`` with the given probabilities."""

    def __init__(self, sde, probabilities):
        super().__init__(sde, Transform.of_levels(len(probabilities)))
        points = torch.arange(32, dtype=torch.float64).add(0.5).div(32)
        cells = torch.arange(len(probabilities))[:, None] + points
        self.points = self.transform.encode(cells.reshape(-1, 1)).flatten()
        self.log_weights = probabilities.log().repeat_interleave(32)

    def forward(self, x, t):
        alpha, sigma = (c.reshape(-1, 1) for c in (self.sde.alpha(t), self.sde.sigma(t)))
        return ((self.log_weights - 0.5 * ((x - alpha * self.points) / sigma) ** 2).softmax(1) @ self.points)[:, None]

    def level_log_probs(self, start):
        """Exact log of the mean of p(k | z_0) over z_0 of this model at a time, by quadrature: (levels,)."""
        t = torch.tensor(start, dtype=torch.float64)
        std = self.sde.sigma(t) / self.sde.alpha(t)
        z, weights = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(40))
        centers = self.transform.encode(torch.arange(self.transform.num_levels, dtype=torch.float64)[:, None] + 0.5)
        away = (self.points[:, None] + std * z)[..., None] - centers.flatten()
        shares = self.log_weights.softmax(0)[:, None] * weights / weights.sum()
        return (shares[..., None] * (-0.5 * (away / std) ** 2).softmax(-1)).sum((0, 1)).log()


@pytest.mark.parametrize("name", ["vp", "ve"])
def test_probabilities_of_levels(name):
    """Bounds of all the integers' probabilities lie below them, and sum to less than 1, though to little less."""
    probabilities = torch.tensor([0.1, 0.4, 0.05, 0.25, 0.2], dtype=torch.float64)
    model = Dequantized(PROCESSES[name], probabilities)
    x = torch.arange(5, dtype=torch.float64)[:, None]
    found = variational_bound(model, x, draws=1500)
    slack = model.level_log_probs(start_of(model, "discretized", (1,))) - found.nats
    assert (slack > -3 * found.stderr).all()
    assert (probabilities * slack).sum() < 0.1
    total, error = found.nats.exp().sum().item(), (found.nats.exp() * found.stderr).norm().item()
    assert error < 0.03
    assert 0.85 < total < 1 + 3 * error
    # Where in its cell the number is given does not matter; a start of one's own leaves it a bound.
    again = variational_bound(model, x + 0.99, draws=4)
    torch.testing.assert_close(again.nats, variational_bound(model, x, draws=4).nats)
    late = variational_bound(model, x, draws=500, start=0.3)
    assert (late.nats - model.level_log_probs(0.3) < 3 * late.stderr).all()
    grid = make_grid(model.sde, "log_snr", 40)
    coarse = discrete_bound(model, x, grid, draws=500)
    assert (coarse.nats - model.level_log_probs(model.sde.t_min) < 3 * coarse.stderr).all()


@pytest.mark.parametrize(("levels", "std"), [(2, 0.3), (17, 0.05), (17, 0.4), (256, 1.3), (5, 40.0)])
def test_decoder_is_normalised(levels, std):
    """Over the levels, for one z_0, and against a softmax over all of them; far tails too."""
    center = torch.tensor([0.5, 1.9, levels / 2, levels - 0.01, -3.0, levels + 8.0], dtype=torch.float64)
    level = torch.arange(levels, dtype=torch.float64)[:, None] + 0 * center
    z = (center - (level + 0.5)) / std
    found = level_log_prob(z, torch.tensor(std, dtype=torch.float64), level, levels)
    torch.testing.assert_close(found, (-0.5 * z**2).log_softmax(0), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.exp().sum(0), torch.ones_like(center), rtol=1e-9, atol=0)


def test_decoders_agree_on_fine_levels(generator):
    """Where cells are small beside sigma, probability and density over cells of width 1 are the same."""
    model = Gaussian(VPSDE(), torch.full((8,), 0.3, dtype=torch.float64), 0.5, transform=Transform.of_levels(4096))
    x = model.transform.quantize(model.transform.decode(0.3 * model.draw(4, generator))) + 0.5
    found = [variational_bound(model, x, draws=64, decoder=name) for name in ("gaussian", "discretized")]
    exact = gaussian_log_prob(model, x, torch.tensor(model.sde.t_min, dtype=torch.float64))
    torch.testing.assert_close(found[0].reconstruction, torch.full((4,), exact, dtype=torch.float64))
    spread = (8 / 2 / 64) ** 0.5
    torch.testing.assert_close(*(part.reconstruction for part in found), rtol=0, atol=4 * spread)
