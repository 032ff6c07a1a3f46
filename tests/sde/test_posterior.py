"""Inverse problems against closed-form posteriors and dense linear algebra."""

from itertools import pairwise

import pytest
import torch

from samplers import SAMPLERS, generate, log_likelihood, sample
from samplers.grid import make_grid
from sde import SDES, VPSDE, Denoiser, Transform
from sde.guidance.interval import GuidanceInterval
from sde.inverse.conjugate_gradients import conjugate_gradients
from sde.inverse.operators import Blur, Mask, SuperResolution
from sde.inverse.posterior import DPS, MMPS, PiGDM, Replacement
from tests.oracles.exact import GaussianMixture
from tests.oracles.linear_gaussian import DIM, problem, unit_points

UNITS = Transform(tuple(torch.linspace(-1, 2, DIM).tolist()), tuple(torch.linspace(0.5, 3, DIM).tolist()))
GUIDED = {"dps": DPS, "pigdm": PiGDM, "moments": MMPS}


def states(task, process, generator, count=12):
    """x_t at times over the whole range, in model units, of data that the measurement knows nothing of."""
    t = torch.linspace(process.t_min, process.t_signal, count, dtype=torch.float64)
    x0, z = (torch.randn((count, DIM), generator=generator, dtype=torch.float64) for _ in range(2))
    return process.perturb(task.transform.encode(task.mean + x0), t, z), t


@pytest.mark.parametrize("sigma_y", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["projection", "mask"])
def test_moment_matching_is_the_posterior_score(process, generator, kind, sigma_y):
    task = problem(kind, sigma_y, transform=UNITS)
    x, t = states(task, process, generator)
    guided = MMPS(task.prior(process), task.operator, task.y, sigma_y, iterations=12)
    exact = task.posterior(process)
    found, expected, score = guided(x, t), exact(x, t), exact.score(x, t)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    # The score, (alpha D - x) / sigma^2, is measured against its own size.
    off = (process.alpha(t) / process.sigma(t) ** 2)[:, None] * (found - expected)
    assert (off.norm(dim=1) < 1e-5 * score.norm(dim=1)).all()


@pytest.mark.parametrize("kind", ["projection", "mask"])
def test_pigdm_is_the_posterior_score_of_isotropic_data(process, generator, kind):
    task = problem(kind, std=0.7, transform=Transform((0.5,), (2.0,)))
    x, t = states(task, process, generator)
    guided = PiGDM(task.prior(process), task.operator, task.y, task.sigma_y, sigma_data=0.35)
    torch.testing.assert_close(guided(x, t), task.posterior(process)(x, t), rtol=1e-5, atol=1e-5)


def sampled(model, task, sampler="unipc", steps=40):
    """The errors of the mean and covariance of what a deterministic sampler makes of unit_points.

    It starts at the posterior's mean at t_max, which the prior neglects: what is measured is the guidance.
    """
    sde, times = model.sde, make_grid(model.sde, "log_snr", steps)
    mean = sde.alpha(times[0]) * task.transform.encode(task.posterior_mean[None])
    x = sample(model, SAMPLERS[sampler](), mean + unit_points() * sde.prior_std(), times)
    return task.errors(task.transform.decode(x))


@pytest.mark.parametrize("name", ["vp", "subvp", "ve"])
def test_sampled_moments_are_those_of_the_posterior(name):
    sde, task = SDES[name](), problem(transform=UNITS)
    assert max(sampled(MMPS(task.prior(sde), task.operator, task.y, task.sigma_y), task)) < 0.02
    task = problem(std=0.7)
    assert max(sampled(PiGDM(task.prior(sde), task.operator, task.y, task.sigma_y, 0.7), task)) < 0.02


def test_order_of_the_biases():
    """Where data are correlated, each approximation costs more than the next, and none as much as no measurement."""
    sde, task = VPSDE(), problem()
    bound = task.prior(sde), task.operator, task.y, task.sigma_y
    data_std = task.covariance.diagonal().mean().sqrt().item()
    models = [MMPS(*bound), PiGDM(*bound, data_std), DPS(*bound, sigma_data=data_std), task.prior(sde)]
    means, spreads = zip(*(sampled(model, task) for model in models), strict=True)
    assert means[0] < 0.1 < means[1] < means[3] / 2
    assert means[0] < 0.1 < means[2] < means[3] / 2
    assert spreads[0] < 0.1 < min(spreads[1:3])
    assert max(spreads[1:3]) < spreads[3] / 2


class Curved(torch.nn.Module):
    """A nonlinear measurement of x (B, 4)."""

    def forward(self, x):
        return torch.stack([x[:, 0] * x[:, 1], x[:, 2].sin() + x[:, 3], (x**2).sum(1)], 1)


@pytest.mark.parametrize("name", GUIDED)
def test_formulas_by_dense_matrices(name, process, generator):
    """D + (sigma^2 / alpha) J^T H^T V^-1 r with every matrix formed, for a mixture and a nonlinear operator."""
    transform = Transform((0.3,), (1.7,))
    means = torch.randn((3, 4), generator=generator, dtype=torch.float64)
    prior = GaussianMixture(process, means, 0.5, transform=transform)
    y = torch.randn((5, 3), generator=generator, dtype=torch.float64)
    t = torch.linspace(process.t_min, process.t_max, 7, dtype=torch.float64)[1:-1]
    x = process.perturb(prior.draw(5, generator), t, torch.randn((5, 4), generator=generator, dtype=torch.float64))
    more = {"dps": {"gamma": 0.4, "sigma_data": 0.8}, "pigdm": {"sigma_data": 0.8}, "moments": {"iterations": 9}}[name]
    found = GUIDED[name](prior, Curved(), y, 0.3, **more)(x, t)
    for i in range(5):
        point, time, variance = x[i], t[i], process.sigma(t[i]) ** 2
        alpha = process.alpha(time)
        mean = prior(point[None], time)[0]
        jacobian = torch.func.jacrev(lambda p, time=time: prior(p[None], time)[0])(point)
        measure = torch.func.jacrev(lambda p: Curved()(transform.decode(p[None]))[0])(mean)
        r = y[i] - Curved()(transform.decode(mean[None]))[0]
        if name == "dps":
            size = (measure.T @ r).square().sum() / r.square().sum()
            added = 0.4 * variance * 0.64 / (variance + alpha**2 * 0.64) * size * torch.eye(3).double()
        elif name == "pigdm":
            added = variance * 0.64 / (variance + alpha**2 * 0.64) * measure @ measure.T
        else:
            added = variance / alpha * measure @ jacobian @ measure.T
        weights = torch.linalg.solve(0.09 * torch.eye(3).double() + added, r)
        expected = mean + variance / alpha * jacobian.T @ measure.T @ weights
        torch.testing.assert_close(found[i], expected, rtol=1e-5, atol=1e-5)


def test_conjugate_gradients_of_each_sample_alone(generator):
    root = torch.randn((4, 6, 6), generator=generator, dtype=torch.float64)
    matrices = root @ root.mT + torch.eye(6)
    matrices[2] = -matrices[2]
    b = torch.randn((4, 6), generator=generator, dtype=torch.float64)
    b[1] = 0
    found = conjugate_gradients(lambda v: (matrices @ v[..., None])[..., 0], b, 12)
    good = [0, 3]
    torch.testing.assert_close(found[good], torch.linalg.solve(matrices[good], b[good]), rtol=1e-5, atol=1e-5)
    assert not found[1:3].any(), "nothing to solve, and no positive definite matrix"
    alone = conjugate_gradients(lambda v: (matrices[3:] @ v[..., None])[..., 0], b[3:], 12)
    torch.testing.assert_close(found[3:], alone, rtol=1e-12, atol=1e-12)


def test_conjugate_gradients_of_what_is_not_symmetric_make_nothing_worse(generator):
    """The Jacobian of a network is neither quite symmetric nor definite: further iterations never leave more over."""
    root, other = torch.randn((2, 20, 8, 8), generator=generator, dtype=torch.float64)
    matrices = root @ root.mT / 8 + 0.2 * other
    b = torch.randn((20, 8), generator=generator, dtype=torch.float64)

    def product(v):
        return (matrices @ v[..., None])[..., 0]

    left = [(product(conjugate_gradients(product, b, count)) - b).norm(dim=1) for count in (1, 2, 4, 8, 16)]
    for fewer, more in pairwise(left):
        assert (more <= fewer * (1 + 1e-12)).all()
    assert (left[-1] < 0.9 * left[0]).any()


@pytest.mark.parametrize("kind", [*GUIDED.values(), Replacement], ids=lambda k: k.__name__)
def test_a_batch_is_its_rows(kind, generator):
    task, sde = problem("mask"), VPSDE()
    y = torch.randn((8, 8), generator=generator, dtype=torch.float64)
    model = kind(task.prior(sde), task.operator, y)
    x = torch.randn((8, DIM), generator=generator, dtype=torch.float64)
    together = model(x, torch.tensor(0.3))
    for i in range(8):
        alone = model.rows(torch.tensor([i]))(x[i : i + 1], torch.tensor(0.3))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-6, atol=1e-6)
    assert type(model.rows(slice(0, 2))) is kind
    whole = generate(model, SAMPLERS["ddim"](), 8, (DIM,), steps=20)
    parts = generate(model, SAMPLERS["ddim"](), 8, (DIM,), steps=20, batch_size=3)
    torch.testing.assert_close(whole.x, parts.x, rtol=1e-6, atol=1e-6)
    assert whole.mean_nfe == 21, "one call an evaluation"


@pytest.mark.parametrize("kind", [*GUIDED.values(), Replacement], ids=lambda k: k.__name__)
def test_a_mask_for_each_sample(kind, generator):
    """Masks that observe other numbers of entries: each sample as with its own mask alone."""
    prior = problem("mask", transform=UNITS).prior(VPSDE())
    observed = torch.rand((5, DIM), generator=generator) < torch.linspace(0.2, 0.9, 5)[:, None]
    masks, data = Mask(observed, (DIM,)), torch.randn((5, DIM), generator=generator, dtype=torch.float64)
    y, x, t = masks(data), torch.randn(data.shape, generator=generator, dtype=torch.float64), torch.tensor(0.3)
    together = kind(prior, masks, y)(x, t)
    for i in range(5):
        alone = Mask(observed[i], (DIM,))
        expected = kind(prior, alone, alone(data[i : i + 1]))(x[i : i + 1], t)
        torch.testing.assert_close(together[i : i + 1], expected, rtol=1e-9, atol=1e-9)
    whole = generate(kind(prior, masks, y), SAMPLERS["ddim"](), 5, (DIM,), steps=10)
    parts = generate(kind(prior, masks, y), SAMPLERS["ddim"](), 5, (DIM,), steps=10, batch_size=2)
    torch.testing.assert_close(whole.x, parts.x, rtol=1e-6, atol=1e-6)


def test_rows_keep_every_option(generator):
    task, sde = problem(), VPSDE()
    x = torch.randn((2, DIM), generator=generator, dtype=torch.float64)
    y = torch.cat([task.y, task.y + 1])
    prior = task.prior(sde)
    for model in (
        DPS(prior, task.operator, y, 0.3, gamma=0.7, sigma_data=0.6),
        PiGDM(prior, task.operator, y, 0.3, sigma_data=0.6, iterations=3),
        MMPS(prior, task.operator, y, 0.3, iterations=2),
    ):
        second = model.rows(torch.tensor([1]))(x[1:], torch.tensor(0.2))
        torch.testing.assert_close(second, model(x, torch.tensor(0.2))[1:], rtol=1e-9, atol=1e-9)


def test_measurements_guide_within_an_interval(generator):
    """What holds any guidance in check takes these as well, and they take a guided model."""
    task, sde = problem(), VPSDE()
    prior, x = task.prior(sde), torch.randn((2, DIM), generator=generator, dtype=torch.float64)
    t = sde.t_of_log_snr(torch.tensor([2.0, -2.0], dtype=torch.float64))
    inner = MMPS(prior, task.operator, task.y, task.sigma_y, 8)
    limited = GuidanceInterval(inner, high=1.0)
    torch.testing.assert_close(limited(x, t), torch.stack([inner(x, t)[0], prior(x, t)[1]]), rtol=1e-6, atol=1e-6)
    # Two halves of a measurement, one after the other, are the whole.
    halves = [lambda x, part=part: task.operator(x)[:, part] for part in (slice(0, 4), slice(4, 8))]
    first = MMPS(prior, halves[0], task.y[:, :4], task.sigma_y, 5)
    both = MMPS(first, halves[1], task.y[:, 4:], task.sigma_y, 5)
    torch.testing.assert_close(both(x, t), task.posterior(sde)(x, t), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [*GUIDED.values(), Replacement], ids=lambda k: k.__name__)
@pytest.mark.parametrize("levels", [None, 16])
def test_observed_entries_come_back_exactly(kind, levels, generator):
    transform = Transform.of_levels(16) if levels else Transform((5.0,), (3.3,))
    means = torch.randn((4, 3, 4, 4), generator=generator)
    model = GaussianMixture(VPSDE(), means, 0.2, transform=transform)
    mask = Mask(torch.arange(16).view(4, 4) < 9, (3, 4, 4))
    y = mask(transform.quantize(transform.decode(model.draw(6, generator).float())))
    posterior = kind(model, mask, y)
    if kind is Replacement:
        replaced = transform.decode(posterior(torch.zeros(6, 3, 4, 4), torch.tensor(0.5)))
        torch.testing.assert_close(mask(replaced), y + (0.5 if levels else 0), msg="a level is the middle of its cell")
    found = generate(posterior, SAMPLERS["ancestral"](), 6, (3, 4, 4), steps=50).x
    # Before they are put in their place, to the width of a level and of what is left of the noise.
    close = {DPS: 1.0, PiGDM: 1.0}.get(kind, 0.0 if levels else 1e-3)
    assert (mask(found) - y).abs().max() <= close
    restored = mask.restore(found, y)
    assert torch.equal(mask(restored), y)
    hidden = ~mask.mask.expand(restored.shape)
    assert torch.equal(restored[hidden], found[hidden])


def test_likelihood_of_the_posterior(generator):
    """log p(x | y) by the flow of the guided model, whose divergence takes derivatives of the gradient."""
    task, sde = problem(transform=UNITS), VPSDE()
    normal = torch.distributions.MultivariateNormal(task.posterior_mean, task.posterior_covariance)
    x = (
        task.posterior_mean
        + torch.randn((2, DIM), generator=generator, dtype=torch.float64)
        @ torch.linalg.cholesky(task.posterior_covariance).T
    )
    guided = MMPS(task.prior(sde), task.operator, task.y, task.sigma_y, iterations=9)
    found = log_likelihood(guided, x, rtol=1e-4, atol=1e-4, guided=True)
    torch.testing.assert_close(found.nats, normal.log_prob(x), rtol=0, atol=0.1)


def test_pigdm_takes_the_spread_of_the_data_from_the_denoiser():
    model = Denoiser(torch.nn.Identity(), VPSDE(), sigma_data=0.31)
    assert PiGDM(model, torch.nn.Identity(), torch.zeros(1, 2)).sigma_data == 0.31
    assert PiGDM(problem().prior(VPSDE()), torch.nn.Identity(), torch.zeros(1, 2)).sigma_data == 1


@pytest.mark.parametrize("shape", [(12,), (3, 8, 12), (2, 4, 6, 8)], ids=str)
def test_every_event_shape(shape, generator):
    model = GaussianMixture(VPSDE(), torch.randn((2, *shape), generator=generator), 0.3)
    x = model.draw(4, generator).float()
    axes = min(len(shape), 3)
    for operator in (Blur.gaussian(0.7, axes), SuperResolution(2, 1), lambda x: x.flatten(1).tanh()):
        y = operator(x)
        for kind in GUIDED.values():
            found = generate(kind(model, operator, y, 0.1), SAMPLERS["ddim"](), 4, shape, steps=10).x
            assert (operator(found) - y).square().mean().sqrt() < 0.25
            # The other component is further away than this.
            assert (found - x).square().mean().sqrt() < 0.6


def test_refusals():
    prior, x, t = problem().prior(VPSDE()), torch.zeros(4, DIM).double(), torch.tensor(0.5)
    task = problem()
    for kind in GUIDED.values():
        with pytest.raises(ValueError, match=r"sigma_y = -0.1.*data units"):
            kind(prior, task.operator, task.y, -0.1)
        with pytest.raises(ValueError, match=r"operator makes \(4, 8\).*a row of y has shape \(7,\)"):
            kind(prior, task.operator, task.y[:, :7])(x, t)
        with pytest.raises(ValueError, match="bound to 3 samples, x has 4"):
            kind(prior, task.operator, task.y.expand(3, 8))(x, t)
        with pytest.raises(ValueError, match=r"y of shape .* has 8 values that are not finite"):
            kind(prior, task.operator, task.y * torch.nan)
        with pytest.raises(ValueError, match="does not depend differentiably on x"):
            kind(prior, lambda x: task.operator(x).round().detach(), task.y)(x, t)
    with pytest.raises(ValueError, match="operator makes tuple"):
        DPS(prior, lambda x: (x, x), task.y)(x, t)
    with pytest.raises(ValueError, match="gamma = 0"):
        DPS(prior, task.operator, task.y, gamma=0)
    with pytest.raises(ValueError, match="sigma_data = 0"):
        PiGDM(prior, task.operator, task.y, sigma_data=0)
    for kind in (PiGDM, MMPS):
        with pytest.raises(ValueError, match="iterations = 0"):
            kind(prior, task.operator, task.y, iterations=0)
    with pytest.raises(ValueError, match="replacement needs a Mask"):
        Replacement(prior, task.operator, task.y)
    with pytest.raises(ValueError, match=r"operator makes \(4, 8\).*a row of y has shape \(7,\)"):
        Replacement(prior, problem("mask").operator, task.y[:, :7])(x, t)
