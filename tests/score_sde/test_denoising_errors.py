"""What --mode check measures, against exact answers."""

import numpy as np
import pytest
import torch
from torch import nn

from score_sde.diagnosis.examination import channel_moments, distance, mean_age
from score_sde.diagnosis.linear_denoiser import LinearDenoiser
from score_sde.evaluation.denoising_errors import DenoisingErrors
from sde import VPSDE, Denoiser
from sde.data.dataset import Dataset
from sde.data.transform import Transform
from sde.training.ema import EMA
from sde.training.times import TIMES
from tests.oracles.exact import GaussianDenoiser
from tests.oracles.processes import PROCESSES

CPU = torch.device("cpu")
STD, SIGMA_DATA = 0.5, 0.8


class Oracle(GaussianDenoiser):
    sigma_data = SIGMA_DATA


@pytest.mark.parametrize("count", [40, 3])
def test_the_linear_filter_is_the_posterior_mean_of_its_moments(process, count, generator):
    """m + alpha C (alpha^2 C + sigma^2)^-1 (x - alpha m), by a solver, with fewer items than dimensions as well."""
    items = torch.randn(count, 1, 2, 3, generator=generator, dtype=torch.float64) * torch.arange(1, 4) + 0.7
    model = LinearDenoiser(process, items, 1.0)
    flat = items.flatten(1)
    covariance = (flat - flat.mean(0)).T @ (flat - flat.mean(0)) / count
    x = torch.randn(5, 1, 2, 3, generator=generator, dtype=torch.float64)
    for t in torch.linspace(process.t_min, process.t_max, 5, dtype=torch.float64)[1:]:
        alpha, sigma = process.alpha(t), process.sigma(t)
        matrix = alpha**2 * covariance + sigma**2 * torch.eye(6, dtype=torch.float64)
        expected = flat.mean(0) + alpha * (x.flatten(1) - alpha * flat.mean(0)) @ torch.linalg.solve(matrix, covariance)
        torch.testing.assert_close(model(x, t).flatten(1), expected)
        torch.testing.assert_close(model(x, t.expand(5)), model(x, t))


def test_a_filter_of_few_items_is_shrunk():
    """Of 60 items in 400 dimensions, most of them nearly alike: without shrinkage the filter takes what the items do
    not span for certain, and its error is many times that of c_skip x; the chosen one is below it. Of many items in
    few dimensions nearly nothing is shrunk."""
    sde, generator = VPSDE(), torch.Generator().manual_seed(0)
    t = TIMES["log_normal"](sde, (torch.arange(8, dtype=torch.float64) + 0.5) / 8)
    std = torch.cat([torch.full((20,), 2.0), torch.full((380,), 0.3)]).double()
    draw = torch.randn(2060, 400, generator=generator, dtype=torch.float64) * std
    sigma_data = std.square().mean().sqrt().item()

    def error(values, x):
        """At x (n, 400) of the filter, level by level, with the noise integrated."""
        found = 0.0
        for at in t:
            alpha, sigma = sde.alpha(at), sde.sigma(at)
            mean = values(alpha * x, at)
            matrix = values(torch.eye(400).double(), at) - values(torch.zeros(1, 400).double(), at)
            square = (mean - x).square().sum(1).mean() + sigma**2 * matrix.square().sum()
            found += ((1 / sigma_data**2 + (alpha / sigma) ** 2) * square / 400).item() / len(t)
        return found

    few, held_out = draw[:60], draw[60:]
    plain, fitted = LinearDenoiser(sde, few, sigma_data), LinearDenoiser.fitted(sde, few, sigma_data, t)

    def exact(x, at):
        alpha, sigma = sde.alpha(at), sde.sigma(at)
        return x * alpha * std**2 / (alpha**2 * std**2 + sigma**2)

    bound = error(exact, held_out)
    assert error(plain, held_out) > 3
    assert bound < error(fitted, held_out) < 1
    assert 0 < fitted.shrinkage < 1
    many = LinearDenoiser.fitted(sde, held_out[:, 10:30], sigma_data, t)
    assert many.shrinkage <= 0.03


@pytest.mark.parametrize("sde", [VPSDE(), PROCESSES["ve"]], ids=["vp", "ve"])
def test_errors_and_scores_of_the_exact_model(sde, generator):
    """Posterior variance at every level, and a calibrated score."""
    transform = Transform((3.0,), (2.0,))
    model = Oracle(sde, torch.full((2, 6), 0.3), STD)
    data = Dataset(transform.decode(model.draw(800, generator)), None, None, transform)
    at = DenoisingErrors(data, model, "log_normal", CPU, items=800, count=4, batch_size=300)
    u = (torch.arange(4, dtype=torch.float64) + 0.5) / 4
    torch.testing.assert_close(
        at.noise_level, (sde.sigma(TIMES["log_normal"](sde, u)) / sde.alpha(TIMES["log_normal"](sde, u)))
    )
    posterior = STD**2 * at.noise_level**2 / (STD**2 + at.noise_level**2)
    errors = at.errors(model)
    assert errors.shape == (4, 800)
    # 9,600 numbers a level: chi-squared, four standard deviations.
    torch.testing.assert_close(errors.mean(1), posterior * (at.noise_level**-2 + SIGMA_DATA**-2), rtol=0.06, atol=0)
    score, calibrated = at.scores(model).mean(1).T
    torch.testing.assert_close(score, posterior / at.noise_level**2, rtol=0.06, atol=0)
    torch.testing.assert_close(score, calibrated, rtol=0, atol=0.06)
    assert torch.equal(DenoisingErrors(data, model, "log_normal", CPU, items=800, count=4).errors(model), errors)
    assert at.cond is None


class Told(nn.Module):
    """F = c_noise + label (none: -1), whatever x."""

    num_classes = 5

    def forward(self, x, c_noise, cond=None):
        label = torch.full_like(c_noise, -1.0) if cond is None else cond["labels"]
        return (c_noise + label)[:, None].expand_as(x)


def test_sensitivity_is_the_change_of_the_output(generator):
    labels = torch.arange(40) % 5
    data = Dataset(torch.randn(40, 3, generator=generator), labels, 5, Transform())
    model = Denoiser(Told(), VPSDE(), "edm", 1.0)
    at = DenoisingErrors(data, model, "log_normal", CPU, items=40, count=4, batch_size=16)
    c, label = at.noise_level.log()[:, None] / 4, labels.double()
    size = (c + label).square().sum()
    told = c[[2, 3, 0, 1]]
    found, other = at.sensitivity(model, "time", "other", "none"), at.other["labels"].double()
    changes = {"time": told - c + 0 * label, "other": other - label + 0 * c, "none": label + 1 + 0 * c}
    assert found == pytest.approx(
        {"output": (size / 160).sqrt().item()}
        | {name: (change.square().sum() / size).sqrt().item() for name, change in changes.items()},
        rel=1e-5,
    )
    assert torch.equal(at.has_other_condition, at.other["labels"] != labels)
    assert torch.equal(at.other["labels"].bincount(), labels.bincount()), "other items' conditions, each once"


def test_mean_age_is_that_of_the_average():
    """The EMA of a parameter that is n after update n is n less the mean age; the initial one counts as 0."""
    module = nn.Linear(1, 1, bias=False)
    for decay in (0.0, 0.9, 0.9999):
        nn.init.zeros_(module.weight)
        ema = EMA(module, decay)
        for n in range(1, 201):
            nn.init.constant_(module.weight, float(n))
            ema.update(module)
            if n in (1, 2, 50, 200):
                assert mean_age(n, decay) == pytest.approx(n - ema.average["weight"].item(), rel=1e-4, abs=1e-5)


def test_channel_moments(generator):
    x = 2 + 3 * torch.randn(4000, 2, 5, generator=generator)
    x[:, 1] *= 2
    mean, std, mean_error, std_error = channel_moments(x)
    assert np.allclose(mean, x.numpy().mean((0, 2)), atol=1e-5)
    assert np.allclose(std, x.numpy().std((0, 2)), rtol=1e-5)
    # Of 20,000 independent normal numbers.
    assert np.allclose(mean_error, std / 20_000**0.5, rtol=0.1)
    assert np.allclose(std_error, std / 40_000**0.5, rtol=0.1)
    assert [len(values) for values in channel_moments(x[:, 0, 0])] == [1] * 4


def test_distance():
    assert distance({"a": torch.tensor([3.0, 4.0])}, {"a": torch.tensor([0.0, 5.0])}) == pytest.approx((10 / 25) ** 0.5)
