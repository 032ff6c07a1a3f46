"""What samplers share: independent formulas, few steps, grids, seeds, batches."""

import math

import pytest
import torch

from samplers import GRIDS, SAMPLERS, Ancestral, Langevin, SeededNoise, generate
from samplers.grid import OF_TIME, check_times, make_grid
from sde import SDES, VPSDE, Transform
from tests.batteries.tiers import ADAPTIVE, two_tiers
from tests.batteries.variants import VARIANTS
from tests.oracles.exact import Gaussian, GaussianMixture

MIXTURE = torch.tensor([[-1.5, 0.0], [1.0, 1.0], [0.5, -1.0]])


def unit(x):
    return torch.ones_like(x)


def nothing(x):
    return torch.zeros_like(x)


def test_ancestral_is_the_posterior_of_ddpm():
    """Ho et al. 2020, eqs. 6 and 7, and the two variances of section 3.2, in their discrete notation."""
    alpha_bar = torch.tensor([0.9, 0.4], dtype=torch.float64)
    sde = VPSDE()
    s, t = (sde.t_of_log_snr(torch.log(a / (1 - a))) for a in alpha_bar)
    beta = 1 - alpha_bar[1] / alpha_bar[0]
    model = Gaussian(sde, torch.tensor([0.3], dtype=torch.float64), 0.8)
    x = torch.tensor([[1.7]], dtype=torch.float64)
    mean = alpha_bar[0].sqrt() * beta / (1 - alpha_bar[1]) * model(x, t) + (
        (1 - beta).sqrt() * (1 - alpha_bar[0]) / (1 - alpha_bar[1]) * x
    )
    variances = {"posterior": (1 - alpha_bar[0]) / (1 - alpha_bar[1]) * beta, "beta": beta}
    for name, variance in variances.items():
        torch.testing.assert_close(Ancestral(name).step(model, x, t, s, nothing)[0], mean)
        torch.testing.assert_close(Ancestral(name).step(model, x, t, s, unit)[0], mean + variance.sqrt())


def test_ddim_in_its_own_notation():
    """Song, Meng and Ermon 2021, eqs. 12 and 16."""
    alpha_bar = torch.tensor([0.9, 0.4], dtype=torch.float64)
    sde, eta = VPSDE(), 0.6
    s, t = (sde.t_of_log_snr(torch.log(a / (1 - a))) for a in alpha_bar)
    model = Gaussian(sde, torch.tensor([0.3], dtype=torch.float64), 0.8)
    x = torch.tensor([[1.7]], dtype=torch.float64)
    a_s, a_t = alpha_bar
    std = eta * ((1 - a_s) / (1 - a_t)).sqrt() * (1 - a_t / a_s).sqrt()
    epsilon = (x - a_t.sqrt() * model(x, t)) / (1 - a_t).sqrt()
    expected = a_s.sqrt() * model(x, t) + (1 - a_s - std**2).sqrt() * epsilon + std
    torch.testing.assert_close(SAMPLERS["ddim"](eta).step(model, x, t, s, unit)[0], expected)


@pytest.mark.parametrize("snr", [0.05, 0.16])
def test_langevin_keeps_the_law_of_its_time(process, snr, generator):
    """For N(m, v), steps of size e leave variance v / (1 - e / 2v): exact, and close to v."""
    dim, std = 20_000, 0.5
    s = GRIDS["log_snr"](process, 4)[2]
    model = Gaussian(process, torch.full((dim,), 0.7), std)
    exact_mean = (process.alpha(s) * 0.7).item()
    exact = ((process.alpha(s) * std) ** 2 + process.sigma(s) ** 2).item()
    size = min(2 * snr**2 * exact, process.sigma(s).item() ** 2)
    x = exact_mean + exact**0.5 * torch.randn(2, dim, generator=generator)
    steps = math.ceil(3 * exact / size)
    out, _ = Langevin(snr, steps).step(model, x, s, s, lambda x: torch.randn(x.shape, generator=generator))
    assert out.var(dim=1).mean().item() == pytest.approx(exact / (1 - size / (2 * exact)), rel=0.02)
    assert out.mean().item() == pytest.approx(exact_mean, abs=0.03 * exact**0.5)


def test_langevin_step_in_the_plane():
    """The step's size is 2 snr^2 dim / |score|^2, whatever the noise drawn: the map is affine in the noise."""
    model = Gaussian(VPSDE(), torch.zeros(2, dtype=torch.float64), 0.5)
    s, x = torch.tensor(0.5, dtype=torch.float64), torch.tensor([[3.0, -4.0]], dtype=torch.float64)
    score = model.score(x, s)
    size = 2 * 0.1**2 * 2 / score.square().sum()
    for z in (torch.zeros_like(x), torch.tensor([[5.0, 1.0]], dtype=torch.float64)):
        out, _ = Langevin(0.1).step(model, x, s, s, lambda _, z=z: z)
        torch.testing.assert_close(out, x + size * score + (2 * size).sqrt() * z)


def test_a_corrector_acts_at_the_time_of_arrival():
    """Song et al. 2021, algorithm 1: the predictor from t to s, then the corrector at s."""
    model = Gaussian(VPSDE(), torch.zeros(2, dtype=torch.float64), 0.5)
    (t, s), x = torch.tensor([0.6, 0.4], dtype=torch.float64), torch.tensor([[3.0, -4.0]], dtype=torch.float64)
    sampler = SAMPLERS["pc"]()
    arrived, _ = sampler.predictor.step(model, x, t, s, unit)
    expected, _ = sampler.corrector.step(model, arrived, s, s, unit)
    torch.testing.assert_close(sampler.step(model, x, t, s, unit)[0], expected)


@pytest.mark.parametrize("name", ["langevin", "pc", "ancestral", "euler_maruyama"])
def test_stochastic_samplers_end_at_the_data(name, process, generator):
    std = 0.5
    model = Gaussian(process, torch.full((4000,), 0.7), std)
    x = generate(model, SAMPLERS[name](), 2, (4000,), steps=300 if name == "langevin" else 150, grid="log_snr").x
    assert x.mean().item() == pytest.approx(0.7, abs=0.05)
    assert x.std().item() == pytest.approx(std, rel=0.06)


# Few steps are ends, which all processes share; 27 pass through histories of every length, which adaptive samplers do
# not have.
@pytest.mark.parametrize(
    ("name", "process", "steps"),
    [(name, "vp", steps) for name in VARIANTS for steps in (1, 2, 3)]
    + [(*c, 27) for c in two_tiers(VARIANTS) if c[0] not in ADAPTIVE],
    indirect=["process"],
)
def test_any_number_of_steps(name, process, steps):
    """One step from the prior of an exact model lands on the posterior mean; more stay within the data's reach.

    Those that extrapolate a slope over the whole range cannot, but must stay finite.
    """
    model = GaussianMixture(process, MIXTURE, 0.2)
    x = generate(model, VARIANTS[name], 5, (2,), steps=steps).x
    assert x.shape == (5, 2)
    assert x.isfinite().all()
    if name in ("ancestral", "ddim", "ddim-eta", "ddim-1", "dpmpp", "ode", "pc-ddim"):
        assert x.abs().max() < 6


@pytest.mark.parametrize("process", ["vp"], indirect=True)
@pytest.mark.parametrize("name", VARIANTS)
def test_a_sample_depends_on_its_seed_alone(name, process):
    """Not on how many are drawn, in what chunks, or beside which others."""
    model = GaussianMixture(process, MIXTURE.double(), 0.2)
    state, steps = torch.get_rng_state(), None if name in ADAPTIVE else 5
    draws = [
        generate(model, VARIANTS[name], n, (2,), steps=steps, seed=3, batch_size=size)
        for n, size in ((7, 7), (7, 3), (4, 1))
    ]
    assert torch.equal(state, torch.get_rng_state())
    torch.testing.assert_close(draws[1].x, draws[0].x, rtol=0, atol=1e-12)
    torch.testing.assert_close(draws[2].x, draws[0].x[:4], rtol=0, atol=1e-12)
    other = generate(model, VARIANTS[name], 4, (2,), steps=steps, seed=4).x
    assert (other - draws[0].x[:4]).abs().max() > 1e-3


# A deterministic sampler, a stochastic one with a history, and an adaptive one: no sampler sees the transform.
@pytest.mark.parametrize("process", ["vp"], indirect=True)
@pytest.mark.parametrize("name", ["heun", "unipc-3-noise", "dpmpp-3", "ancestral", "pc-ddim", "ode"])
def test_affine_equivariance(name, process):
    """Data a x + b through their own transform give the samples a x + b."""
    shift, scale = (3.0, -2.0), (10.0, 0.5)
    plain = GaussianMixture(process, MIXTURE.double(), 0.2)
    moved = GaussianMixture(process, MIXTURE.double(), 0.2, transform=Transform(shift, scale))
    x, y = (generate(model, VARIANTS[name], 4, (2,), steps=4).x for model in (plain, moved))
    torch.testing.assert_close(y, x * torch.tensor(scale) + torch.tensor(shift), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("grid", GRIDS)
def test_grids(grid, process):
    for steps in (1, 2, 9, 1000):
        times = make_grid(process, grid, steps)
        assert times.dtype == torch.float64
        assert len(times) == steps + 1
        assert times[0] == process.t_max
        assert times[-1] == process.t_min
        assert (times.diff() < 0).all()


SPACING = {
    "uniform": lambda sde, t: t,
    "polynomial": lambda sde, t: t**0.5,
    "log_snr": lambda sde, t: sde.log_snr(t),
    "cosine": lambda sde, t: torch.atan2(sde.sigma(t), sde.alpha(t)),
    "karras": lambda sde, t: (sde.sigma(t) / sde.alpha(t)) ** (1 / 7),
    "karras:3": lambda sde, t: (sde.sigma(t) / sde.alpha(t)) ** (1 / 3),
    "polynomial:1.5": lambda sde, t: t ** (1 / 1.5),
    "flow": lambda sde, t: sde.sigma(t) / (sde.alpha(t) + sde.sigma(t)),
    "flow:3": lambda sde, t: sde.sigma(t) / (3 * sde.alpha(t) + sde.sigma(t)),
}
"""What has equal steps on each grid."""


@pytest.mark.parametrize("grid", SPACING)
def test_grid_spacing(grid, process):
    assert SPACING.keys() >= GRIDS.keys()
    for start in (None, 0.6):
        times = make_grid(process, grid, 20, start)
        assert times[0] == (process.t_max if start is None else start)
        if start is None and process.open_end and grid.partition(":")[0] not in (*OF_TIME, "flow"):
            # The noise end has no level: the first is that of alpha / sigma = 1e-3.
            assert process.noise_level(times[1]).item() == pytest.approx(1e3)
            times = times[1:]
        steps = SPACING[grid](process, times).diff()
        torch.testing.assert_close(steps, steps.mean().expand(len(steps)), rtol=1e-5, atol=0)


def test_a_flow_grid_on_its_own_path():
    """Equal steps in t, and with a shift of 3 the times 3 t / (1 + 2 t) of equal steps in t: SD3's."""
    sde = SDES["flow"]()
    torch.testing.assert_close(make_grid(sde, "flow", 50), make_grid(sde, "uniform", 50), rtol=1e-12, atol=0)
    times = make_grid(sde, "flow:3", 50)
    u = torch.linspace(1, 0.001 / (0.001 + 3 * 0.999), 51, dtype=torch.float64)
    torch.testing.assert_close(times, 3 * u / (1 + 2 * u), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("times", "words"), [
    ([0.5, 0.5], "strictly decreasing"), ([0.1, 0.5], "entry 1"), ([1.5, 0.5], "t_max"), ([0.5], "at least two"),
    ([0.5, math.nan], "strictly decreasing"), ([[0.5, 0.1]], "one dimension"),
])  # fmt: skip
def test_bad_times(times, words):
    with pytest.raises(ValueError, match=words):
        check_times(torch.tensor(times), VPSDE())


@pytest.mark.parametrize(
    "grid", ["karas", "uniform:2", "karras:x", "karras:0", "polynomial:-1", "karras:inf", "flow:0"]
)
def test_bad_grids(grid):
    with pytest.raises(ValueError, match=f"grid = '{grid}'"):
        make_grid(VPSDE(), grid, 4)


@pytest.mark.parametrize("steps", [0, -3, 2.5, True])
def test_bad_steps(steps):
    with pytest.raises(ValueError, match="steps"):
        make_grid(VPSDE(), "uniform", steps)


def test_seeded_noise_needs_a_seed_a_row():
    noise = SeededNoise([1, 2])
    rows = noise(torch.empty(2, 3))
    torch.testing.assert_close(SeededNoise([2])(torch.empty(1, 3)), rows[1:])
    with pytest.raises(ValueError, match="2 seeds, x has 3 rows"):
        noise(torch.empty(3, 3))


@pytest.mark.parametrize("sde", SDES)
def test_samples_of_quantised_data_are_its_levels(sde):
    model = GaussianMixture(SDES[sde](), torch.tensor([[-0.9], [0.5]]), 0.05, transform=Transform.of_levels(17))
    x = generate(model, SAMPLERS["dpmpp"](), 50, (1,)).x
    assert torch.equal(x, x.round())
    assert x.min() >= 0
    assert x.max() <= 16
