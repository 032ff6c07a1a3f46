"""The solver that benchmarks/learned_solver.py learns: where it begins, its gradients, and that it learns."""

import pytest
import torch

from benchmarks.learned_solver import Learning, NonStationary, adams, learn
from samplers import ExponentialAdams, sample
from samplers.grid import make_grid
from tests.oracles.exact import GaussianMixture
from tests.oracles.processes import PROCESSES

MODES = torch.tensor([[1.0, 0.2], [-0.8, 0.6], [0.1, -1.0]], dtype=torch.float64)


@pytest.fixture(params=["vp", "straight"])
def model(request):
    return GaussianMixture(PROCESSES[request.param], MODES, 0.15)


def run(model, sampler, x, steps):
    return sample(model, sampler, x, make_grid(model.sde, "log_snr", steps), denoise=False)


def test_it_begins_as_exponential_adams(model, generator):
    x = model.sde.prior_std() * torch.randn(4, 2, dtype=torch.float64, generator=generator)
    solver = NonStationary(model.sde, *adams(model.sde, 10))
    exact = run(model, ExponentialAdams(3), x, 10)
    torch.testing.assert_close(solver(model, x), exact, rtol=1e-12, atol=1e-12)
    found = solver.sampler()
    torch.testing.assert_close(sample(model, found, x, found.grid, denoise=False), exact, rtol=1e-12, atol=1e-12)


def test_gradients_of_times_and_weights(model, generator):
    x = model.sde.prior_std() * torch.randn(4, 2, dtype=torch.float64, generator=generator)
    solver = NonStationary(model.sde, *adams(model.sde, 5))
    solver(model, x).square().sum().backward()
    for values, place in ((solver.gaps, 2), (solver.changes[3], 1)):
        ends = []
        for change in (1e-5, -2e-5):
            values.data[place] += change
            ends.append(solver(model, x).square().sum().item())
        values.data[place] += 1e-5
        assert values.grad[place].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4)


def test_it_learns_and_counts_its_calls(model, generator):
    x = model.sde.prior_std() * torch.randn(48, 2, dtype=torch.float64, generator=generator)
    ends = run(model, ExponentialAdams(4), x, 100)
    options = Learning(pairs=48, batch=24, iterations=75)
    solver, cost = learn(model, x, ends, adams(model.sde, 4), options, 0)
    begun = (run(model, ExponentialAdams(3), x, 4) - ends).norm(dim=1).median()
    assert (sample(model, solver, x, solver.grid, denoise=False) - ends).norm(dim=1).median() < 0.7 * begun
    assert cost == 4 * (75 * 24 * 3 + 4 * 12)
