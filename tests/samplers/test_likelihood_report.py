"""The likelihood report: parts of its error, bounds in order, and exact values."""

import json
import math

import pytest
import torch

from samplers import dequantized, likelihood_report, log_likelihood
from samplers.likelihood.report import report_work
from sde import VPSDE, Transform
from tests.batteries.tiers import TWO
from tests.oracles.exact import GaussianMixture, Uniform

MEANS = torch.tensor([[-0.6, 0.1], [0.5, 0.4], [0.2, -0.7]], dtype=torch.float64)


def test_uniform_noise_on_256_levels_has_eight_bits(generator):
    model = Uniform(VPSDE(t_min=1e-5), transform=Transform.of_levels(256))
    x = torch.randint(0, 256, (512, 4), generator=generator).double()
    report = likelihood_report(model, x, rtol=1e-6, atol=1e-6, bound_draws=64)
    assert report.unit == "bits/dim"
    assert report.ode.mean == pytest.approx(8, abs=0.002)
    assert report.importance is None
    assert report.stderr_parts["probes"] == 0
    # A bound is a larger number of bits.
    assert report.variational.mean > 8 - 3 * report.variational.stderr
    assert report.discrete.mean > report.variational.mean - 3 * report.discrete.stderr


@pytest.mark.parametrize("process", TWO, indirect=True)
def test_bounds_lie_below_the_exact_density(process, generator):
    model = GaussianMixture(process, MEANS, 0.2)
    x = model.draw(200, generator)
    report = likelihood_report(model, x, rtol=1e-6, atol=1e-6)
    assert report.unit == "nats"
    t_min = torch.tensor(process.t_min, dtype=torch.float64)
    flow = log_likelihood(model, x, rtol=1e-6, atol=1e-6).nats.mean().item()
    assert report.ode.mean == pytest.approx(flow, abs=1e-9)
    assert report.ode.mean == pytest.approx(model.log_prob(x, t_min).mean().item(), abs=0.02)
    assert report.variational.mean < report.ode.mean + 3 * report.variational.stderr
    assert report.discrete.mean < report.variational.mean + 3 * report.discrete.stderr
    # What lies between 0 and t_min is small for these processes, and the bound there is one.
    assert report.bound_at_zero.mean < report.at_t_min.mean + 0.05
    assert abs(report.bound_at_zero.mean - report.at_t_min.mean) < 0.1
    assert report.tolerance_change < 1e-3
    assert report.stderr_parts == {"data": pytest.approx(report.ode.stderr), "dequantization": 0, "probes": 0}


def test_parts_of_the_error_add_up_and_are_those_of_repetitions(generator):
    """The parts by probes and dequantization against the spread of the mean over seeds."""
    transform = Transform.of_levels(5)
    model = GaussianMixture(
        VPSDE(), torch.randn(4, 8, generator=generator, dtype=torch.float64) / 2, 0.3, transform=transform
    )
    x = transform.quantize(transform.decode(model.draw(64, generator)))
    reports = [likelihood_report(model, x, probes=2, rtol=1e-3, atol=1e-3, seed=seed, subset=64, bound_draws=1,
                                 discrete_steps=2) for seed in range(12)]  # fmt: skip
    one = reports[0]
    assert sum(part**2 for part in one.stderr_parts.values()) == pytest.approx(one.ode.stderr**2)
    own = math.hypot(*(sum(r.stderr_parts[name] for r in reports) / 12 for name in ("dequantization", "probes")))
    spread = torch.tensor([r.ode.mean for r in reports]).std().item()
    assert 0.5 < spread / own < 1.6
    exact = likelihood_report(model, x, rtol=1e-3, atol=1e-3, subset=64, bound_draws=1, discrete_steps=2)
    assert exact.stderr_parts["probes"] == 0
    # What one report with probes says of it is uncertain by half.
    squares = [report.stderr_parts["dequantization"] ** 2 for report in reports]
    assert exact.stderr_parts["dequantization"] == pytest.approx((sum(squares) / 12) ** 0.5, rel=0.3)


def test_several_draws_tighten_the_bound(generator):
    transform = Transform.of_levels(4)
    model = GaussianMixture(VPSDE(), MEANS, 0.2, transform=transform)
    x = transform.quantize(transform.decode(model.draw(100, generator)))
    report = likelihood_report(model, x, dequantizations=4)
    assert report.importance.mean < report.ode.mean
    single = likelihood_report(model, x)
    assert report.ode.mean == pytest.approx(single.ode.mean, abs=3 * single.stderr_parts["dequantization"])
    assert json.loads(json.dumps(report.summary()))["bits_per_dim"] == report.ode.mean


@pytest.mark.parametrize(("levels", "dequantizations", "subset"), [(4, 1, 3), (4, 2, 9), (None, 1, 32)])
def test_progress_ends_at_its_total(generator, levels, dequantizations, subset):
    transform = Transform() if levels is None else Transform.of_levels(levels)
    model = GaussianMixture(VPSDE(), MEANS, 0.2, transform=transform)
    x, heard = transform.quantize(transform.decode(model.draw(7, generator))), []
    options = {"dequantizations": dequantizations, "subset": subset}
    likelihood_report(model, x, batch_size=4, bound_draws=2, discrete_steps=2, progress=heard.append, **options)
    assert sum(heard) == report_work(transform, 7, **options)
    half = report_work(transform, 7, rows=lambda n: slice(0, n // 2), **options)
    assert half + report_work(transform, 7, rows=lambda n: slice(n // 2, n), **options) == sum(heard)


def test_batches_change_nothing(generator):
    transform = Transform.of_levels(4)
    model = GaussianMixture(VPSDE(), MEANS, 0.2, transform=transform)
    x = transform.quantize(transform.decode(model.draw(9, generator)))
    whole, parts = (likelihood_report(model, x, probes=2, subset=4, batch_size=size) for size in (9, 4))
    torch.testing.assert_close(whole.nats, parts.nats, rtol=0, atol=1e-9)
    assert whole.variational.mean == pytest.approx(parts.variational.mean, abs=1e-9)
    assert torch.equal(dequantized(transform, x, 0)[:4], dequantized(transform, x[:4], 0))
    assert not torch.equal(dequantized(transform, x, 0), dequantized(transform, x, 0, 1))


@pytest.mark.parametrize(("change", "words"), [({"dequantizations": 0}, "dequantizations = 0"),
                                               ({"subset": 1}, "subset = 1"),
                                               ({"batch_size": 0}, "batch_size = 0")])  # fmt: skip
def test_bad_input(change, words, generator):
    model = GaussianMixture(VPSDE(), MEANS, 0.2)
    with pytest.raises(ValueError, match=words):
        likelihood_report(model, model.draw(4, generator), **change)
