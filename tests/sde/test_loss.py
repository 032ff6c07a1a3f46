"""Denoising score matching against the minimum that a Gaussian allows, and the distributions of training times."""

import math
from functools import cache
from itertools import cycle
from unittest.mock import patch

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch

from sde import Denoiser
from sde.condition.tree import drop_conditions, null_like
from sde.data.draws import per_item
from sde.training import loss
from sde.training.loss import WEIGHTINGS, BatchNoise, classifier_loss, denoising_loss, stratified
from sde.training.options import TrainingOptions
from sde.training.times import IMPORTANCE, TIMES, Times
from tests.oracles.exact import GaussianDenoiser
from tests.oracles.processes import PROCESSES

STD = 0.5
LAWS = [name for name in TIMES if name != "logit_normal"]
"""Distributions of times, each by one of its names."""

# Weights of |D - x_0|^2, written out from their definitions as weights lambda of |score - grad log q|^2.
WRITTEN_OUT = {
    "score": lambda a, s, g2: s**2 * (a / s**2) ** 2,
    "likelihood": lambda a, s, g2: g2 * (a / s**2) ** 2,
    "edm": lambda a, s, g2: ((s / a) ** 2 + STD**2) / ((s / a) * STD) ** 2,
    # Of the noise's error |z - z_hat|^2 = (alpha / sigma)^2 |D - x_0|^2 it is min(snr, 5) / snr.
    "min_snr": lambda a, s, g2: torch.minimum((a / s) ** 2, torch.tensor(5.0)) / (a / s) ** 2 * (a / s) ** 2,
    # z_hat - x_hat = (x - (a + s) x_hat) / s has the error (a + s) / s times that of x_hat.
    "flow": lambda a, s, g2: ((a + s) / s) ** 2,
}


class Oracle(GaussianDenoiser):
    sigma_data = STD


def density_of_times(sde, name, t, snr):
    """Probability density in log-SNR of a distribution of times, at times t with their log-SNR; for importance-sampled
    times, whose factor undoes it, that of uniform ones."""
    low, high = snr.min(), snr.max()
    if name == "log_snr":
        return torch.ones_like(snr) / (high - low)
    if name == "log_normal":
        normal = scipy.stats.norm(-1.2, 1.2)
        mass = normal.cdf(-low / 2) - normal.cdf(-high / 2)
        return torch.from_numpy(normal.pdf(-snr / 2)) / 2 / mass
    h = 1e-4 * t
    slope = (sde.log_snr(t + h) - sde.log_snr(t - h)) / (2 * h)
    return 1 / slope.abs() / (sde.t_max - sde.t_min)


@cache
def batches_of(process, times):
    """A model, and items with their draws, which the weightings share."""
    model = Oracle(process, torch.full((4,), 0.3, dtype=torch.float64), STD)
    generator = torch.Generator().manual_seed(0)
    items = [model.draw(2048, generator) for _ in range(12)]
    with patch.object(loss, "per_item", at_once):
        return model, [(x0, None, BatchNoise.draw(process, x0.shape, generator, times)) for x0 in items]


def at_once(draw, seeds, shape):
    """Numbers of the law of ``per_item``, those of all items together, which takes less time."""
    return draw(len(seeds), *shape, generator=torch.Generator().manual_seed(seeds[0].item()))


# On one process each weighting at each distribution of times; on the others each distribution once.
@pytest.mark.parametrize(
    ("process", "weighting", "times"),
    [("straight", weighting, times) for weighting in WEIGHTINGS for times in LAWS]
    + [(name, *pair) for name in PROCESSES if name != "straight" for pair in zip(cycle(WEIGHTINGS), LAWS)],
    indirect=["process"],
)
def test_loss_of_the_exact_model_is_the_posterior_variance(weighting, times, process):
    """The integral over log-SNR of weight x Var[x_0 | x_t], by quadrature."""
    model, batches = batches_of(process, times)
    # Beyond the first, of an open noise end, lie pure noise and uniform times alone.
    ends = process.log_snr(torch.tensor([process.t_signal, process.t_min], dtype=torch.float64))
    snr = torch.linspace(*ends.tolist(), 801, dtype=torch.float64)
    t = process.t_of_log_snr(snr)
    a, s, g2 = process.alpha(t), process.sigma(t), process.g2(t)
    posterior = STD**2 * s**2 / (a**2 * STD**2 + s**2)
    integrand = WRITTEN_OUT[weighting](a, s, g2) * posterior * density_of_times(process, times, t, snr)
    # Without the very ends, where the difference quotient would leave the range of the process.
    exact = scipy.integrate.simpson(integrand[1:-1], x=snr[1:-1])
    means = [denoising_loss(model, *batch, weighting=weighting).mean().item() for batch in batches]
    error = torch.tensor(means).std().item() / len(means) ** 0.5
    assert torch.tensor(means).mean().item() == pytest.approx(exact, rel=0.02, abs=5 * error)


def test_min_snr_is_the_smaller_of_two():
    """Hang et al. 2023, eq. 8, at levels whose signal-to-noise ratio is above, at and below 5."""
    vp, snr = PROCESSES["vp"], torch.tensor([500.0, 5.0, 0.5], dtype=torch.float64)
    weight = WEIGHTINGS["min_snr"](vp, vp.t_of_log_snr(snr.log()), 0.5)
    torch.testing.assert_close(weight, torch.tensor([5.0, 5.0, 0.5], dtype=torch.float64))


def test_the_weighting_flow_is_the_loss_of_flow_matching(process, generator):
    """|F - (z - x_0)|^2 of whatever F a network gives, with D = (x - sigma F) / (alpha + sigma)."""

    class Predicts(torch.nn.Module):
        def forward(self, x, c_noise, cond):
            return torch.sin(3 * x) + c_noise[:, None]

    model = Denoiser(Predicts(), process, "flow", scaled_input=False)
    x0 = torch.randn(64, 5, generator=generator, dtype=torch.float64)
    draws = BatchNoise.draw(process, x0.shape, generator, "uniform")
    found = denoising_loss(model, x0, None, draws, weighting="flow")
    output = model.network(process.perturb(x0, draws.t, draws.noise(x0)), model.coefficients(draws.t)[-1], None)
    expected = (output - (draws.z - x0)).square().mean(1).float()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_normal_times(process, generator):
    """Two names of one law of ln(sigma / alpha), with the mean and the standard deviation that they are told, cut to
    the process; by itself that of t is logit-normal on the straight path."""
    u = torch.rand(20_000, generator=generator, dtype=torch.float64)
    assert torch.equal(Times("log_normal")(process, u), Times("logit_normal", -1.2, 1.2)(process, u))
    t = TrainingOptions(time_distribution="logit_normal", time_mean=0.3, time_std=0.8).times(process, u)
    normal = scipy.stats.norm(0.3, 0.8)
    ends = [process.noise_level(process.t_min).log().item(), process.noise_level(process.t_signal).log().item()]
    low, high = normal.cdf(ends)
    levels = (process.sigma(t) / process.alpha(t)).log().numpy()
    assert scipy.stats.kstest(levels, lambda v: (normal.cdf(v) - low) / (high - low)).pvalue > 0.01


@pytest.mark.parametrize(("options", "words"), [
    ({"time_std": 0.0}, "^time_mean = -1.2 with std = 0.0: needs a finite mean"),
    ({"time_mean": math.nan}, "needs a finite mean"),
    ({"time_distribution": "uniform", "time_mean": 0.5}, "the times uniform take neither, log_normal and logit_normal"),
    ({"time_distribution": "logit"}, "time_distribution = 'logit': needs one of uniform, .*logit_normal"),
])  # fmt: skip
def test_times_that_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        TrainingOptions(**options)


@pytest.mark.parametrize("times", LAWS)
def test_times_stay_in_range(times, process):
    u = torch.tensor([1e-12, 0.25, 0.5, 1 - 1e-12], dtype=torch.float64)
    t = TIMES[times](process, u)
    assert process.t_min <= t.min() <= t.max() <= process.t_max
    assert t.dtype == torch.float64


def test_stratified_numbers_fill_every_part(generator):
    u = stratified(100, generator)
    assert torch.equal((u * 100).floor().sort().values, torch.arange(100.0, dtype=torch.float64))
    assert (u.diff() < 0).any()


def test_dropped_conditions():
    labels = torch.tensor([3, 1, 4])
    vector = torch.ones(3, 2)
    dropped = torch.tensor([True, False, True])
    both = drop_conditions({"label": labels, "vector": vector}, dropped)
    assert both["label"].tolist() == [-1, 1, -1]
    assert both["vector"].isnan().all(1).tolist() == [True, False, True]
    assert null_like(labels).tolist() == [-1, -1, -1]
    # What was done to an item is told whether or not its condition is.
    told = drop_conditions({"labels": labels, "augmentation": vector}, dropped)
    assert told["labels"].tolist() == [-1, 1, -1]
    assert torch.equal(told["augmentation"], vector)


def test_condition_dropout_drops_the_asked_share(generator):
    seen = []

    class Spy(Oracle):
        def forward(self, x, t, cond=None):
            seen.append(cond)
            return super().forward(x, t)

    model = Spy(PROCESSES["vp"], torch.zeros(2), STD)
    draws = BatchNoise.draw(model.sde, (4000, 2), generator)
    denoising_loss(model, torch.zeros(4000, 2), torch.zeros(4000, dtype=torch.long), draws, cond_dropout=0.2)
    assert (seen[0] == -1).float().mean().item() == pytest.approx(0.2, abs=0.03)


def test_classifier_loss_is_the_cross_entropy(process, generator):
    class Constant(torch.nn.Module):
        sde = process

        def forward(self, x, t):
            return torch.tensor([0.0, math.log(3.0)]).expand(len(x), 2)

    labels = torch.tensor([0, 1, 1])
    found = classifier_loss(Constant(), torch.zeros(3, 2), labels, BatchNoise.draw(process, (3, 2), generator))
    torch.testing.assert_close(found, -torch.tensor([0.25, 0.75, 0.75]).log())


@pytest.fixture
def density(process):
    """g^2 / sigma^2 at times (n,), normalized by quadrature over a fine grid, and its cumulative."""
    t = torch.linspace(0, 1, 200_001, dtype=torch.float64).pow(3) * (process.t_signal - process.t_min) + process.t_min
    rate = process.g2(t) / process.sigma(t) ** 2
    cumulative = scipy.integrate.cumulative_simpson(rate.numpy(), x=t.numpy(), initial=0)
    return t, rate / cumulative[-1], cumulative / cumulative[-1]


def test_importance_sampled_times_have_their_density(process, density, generator):
    """The factor is 1 / (p (t_max - t_min)) for the density p that the times have, and that integrates to 1."""
    t, rate, cumulative = density
    p = 1 / (IMPORTANCE["likelihood"](process, t) * (process.t_max - process.t_min))
    assert scipy.integrate.simpson(p.numpy(), x=t.numpy()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(p, rate, rtol=1e-5, atol=0)
    u = torch.rand(20_000, generator=generator, dtype=torch.float64)
    drawn = TIMES["likelihood"](process, u).numpy()
    assert scipy.stats.kstest(drawn, lambda v: np.interp(v, t.numpy(), cumulative)).pvalue > 0.01


def test_importance_sampling_keeps_the_mean_and_lowers_the_variance(process, density, generator, monkeypatch):
    monkeypatch.setattr(loss, "stratified", lambda n, g: torch.rand(n, generator=g, dtype=torch.float64))
    # A generator for each of so many items takes most of the time; any independent normal numbers do here.
    monkeypatch.setattr(loss, "per_item", lambda _, seeds, shape: torch.randn(len(seeds), *shape, generator=generator))
    model = Oracle(process, torch.full((4,), 0.3, dtype=torch.float64), STD)
    x0 = model.draw(100_000, generator)
    uniform, sampled = (
        denoising_loss(
            model, x0, None, BatchNoise.draw(process, x0.shape, generator, times), weighting="likelihood"
        ).double()
        for times in ("uniform", "likelihood")
    )
    error = ((uniform.var() + sampled.var()) / len(x0)).sqrt()
    assert abs(uniform.mean() - sampled.mean()) < 4 * error
    ratio, (t, rate, _) = (uniform.var() / sampled.var()).item(), density
    # Where the log-SNR is linear in t, as in VE, uniform times have the density already.
    uneven = torch.trapezoid(rate**2, t).item() * (process.t_max - process.t_min)
    assert ratio == pytest.approx(1, abs=0.1) if uneven < 1.01 else ratio > min(5, uneven)


def test_classifier_loss_undoes_importance_sampled_times(generator):
    class Clock(torch.nn.Module):
        sde = PROCESSES["vp"]

        def forward(self, x, t):
            return torch.stack([torch.zeros_like(t), t], 1).float()

    labels = torch.zeros(4000, dtype=torch.long)
    found = [
        classifier_loss(Clock(), torch.zeros(4000, 2), labels, BatchNoise.draw(Clock.sde, (4000, 2), generator, times))
        for times in ("uniform", "likelihood")
    ]
    assert found[0].mean().item() == pytest.approx(found[1].mean().item(), rel=0.01)


def test_draws_of_a_part_are_those_of_the_whole(process):
    whole, *parts = (
        BatchNoise.draw(process, (8, 2, 3), torch.Generator().manual_seed(5), "uniform", rows)
        for rows in (slice(None), slice(0, 3), slice(3, 8))
    )
    # Sizes are not drawn but the items' own.
    for name in (name for name in BatchNoise._fields if name != "sizes"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts]))


def test_noise_of_an_item_is_standard_normal():
    seeds = torch.randint(2**62, (3000,), generator=torch.Generator().manual_seed(0))
    z = per_item(torch.randn, seeds, (7,))
    assert scipy.stats.kstest(z.flatten().numpy(), "norm").pvalue > 0.01
    assert abs(np.corrcoef(z[:-1, 0], z[1:, 0])[0, 1]) < 0.06
