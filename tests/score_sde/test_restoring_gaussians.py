"""The defaults of --mode restore on correlated Gaussian data, whose posterior is known."""

import inspect
import math

import pytest
import torch

from samplers import SAMPLERS, generate
from samplers.repaint import RePaint
from score_sde.modes.restore import restore
from score_sde.restoration.cost import ITERATIONS
from score_sde.restoration.methods import AUTO, REPAINT_STEPS, STEPS, posterior
from sde import SDES
from sde.inverse.operators import Blur, Mask, SuperResolution
from tests.oracles.gaussian_fields import field_problem, image_covariance, series_covariance

LINE, IMAGE = (1, 24), (1, 6, 6)
PROBLEMS = {
    "end of a series": (series_covariance(24), LINE, Mask(torch.arange(24) < 16, LINE), 0.0),
    "noisy end of a series": (series_covariance(24), LINE, Mask(torch.arange(24) < 16, LINE), 0.1),
    "means of a series": (series_covariance(24), LINE, SuperResolution(4, 1), 0.0),
    "blurred series": (series_covariance(24), LINE, Blur.gaussian(1.5, 1), 0.1),
    "half an image": (image_covariance(6), IMAGE, Mask(torch.arange(6)[:, None].expand(6, 6) < 3, IMAGE), 0.0),
    "means of an image": (image_covariance(6), IMAGE, SuperResolution(2), 0.0),
}
COUNT = 600
BIAS, RATIO = 0.06, 0.1
"""Bars of the steps' own error: a mean in standard deviations of the posterior, and a variance relative to it."""


def defaults():
    """The sampler of a restoration where no flag says otherwise, and its posterior method."""
    flags = inspect.signature(restore).parameters
    assert (flags["method"].default, flags["repaint_steps"].default) == ("auto", None)
    return RePaint(SAMPLERS[flags["sampler"].default](), REPAINT_STEPS.get(AUTO, 1))


def drawn(task, sde, method=AUTO, sampler=None, items=1, iterations=ITERATIONS[0]):
    """Samples (items, COUNT, dim) as restore makes them."""
    rows = torch.arange(items).repeat_interleave(COUNT)
    model = posterior(method, task.prior(sde), task.operator, task.y[rows].float(), task.sigma_y, iterations)
    x = generate(model, sampler or defaults(), len(rows), task.shape, steps=STEPS, batch_size=len(rows)).x
    if isinstance(task.operator, Mask) and not task.sigma_y:
        x = task.operator.restore(x, task.y[rows].float())
    return x.view(items, COUNT, -1).double()


@pytest.mark.parametrize(("name", "process"), [*((name, "vp") for name in PROBLEMS), ("half an image", "ve")])
def test_the_default_restores_the_exact_posterior(name, process):
    task = field_problem(*PROBLEMS[name], items=1)
    x, std = drawn(task, SDES[process]())[0], task.stds
    open_entries = task.unknown
    off = ((x.mean(0) - task.means[0]) / std)[open_entries].abs()
    ratio = x.var(0)[open_entries] / std[open_entries] ** 2
    # Five standard errors of the means and of the variances of COUNT samples of a Gaussian.
    assert off.max() < BIAS + 5 / math.sqrt(COUNT)
    assert (ratio - 1).abs().max() < RATIO + 5 * math.sqrt(2 / COUNT)
    # Over all entries: the worth of at least three that are independent.
    assert (ratio.mean() - 1).abs() < RATIO + 2 * math.sqrt(2 / COUNT / 3)
    crps, coverage = task.scores(x[None])
    assert crps < 1.02 * task.scores(task.exact(COUNT, torch.Generator().manual_seed(1)))[0]
    # That of COUNT exact samples varies by 0.011.
    assert abs(coverage - 0.8) < 0.045


def test_fewer_iterations_come_close():
    task = field_problem(*PROBLEMS["noisy end of a series"], items=1)
    exact, _ = task.scores(task.exact(COUNT, torch.Generator().manual_seed(1)))
    for iterations in ITERATIONS[1:]:
        crps, coverage = task.scores(drawn(task, SDES["vp"](), iterations=iterations))
        assert crps < 1.1 * exact
        assert abs(coverage - 0.8) < 0.05


def test_the_closed_forms_of_the_oracle():
    """Scores by draws of the truth, and the posterior by conditioning a draw of both."""
    task = field_problem(*PROBLEMS["noisy end of a series"], items=1)
    generator = torch.Generator().manual_seed(3)
    x, truth = task.exact(50, generator), task.exact(20_000, generator)
    crps, coverage = task.scores(x)
    low, high = torch.quantile(x[0], torch.tensor([0.1, 0.9]).double(), 0)
    assert ((truth >= low) & (truth <= high)).double().mean().item() == pytest.approx(coverage, abs=0.005)
    to_truth = (x[0][:, None] - truth[0, :4000]).abs().mean()
    apart = (x[0][:, None] - x[0]).abs().sum((0, 1)).mean() / (50 * 49)
    assert crps == pytest.approx((to_truth - apart / 2).item(), rel=0.02)
    both = torch.randn((50_000, 24), generator=generator, dtype=torch.float64)
    both = both @ torch.linalg.cholesky(task.covariance).T
    y = task.operator(both.view(-1, *task.shape)) + 0.1 * torch.randn(
        (len(both), 16), generator=generator, dtype=torch.float64
    )
    slopes = torch.linalg.lstsq(y, both).solution
    torch.testing.assert_close(task.y @ slopes, task.means, rtol=0, atol=0.05)
    torch.testing.assert_close((both - y @ slopes).std(0), task.stds, rtol=0.03, atol=0.01)
