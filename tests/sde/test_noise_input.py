"""What networks of other projects are told of the time, and how they see x: their own formulas, written out."""

import json
import math

import pytest
import torch
from torch import nn

from sde import SDE, VESDE, VPSDE, Denoiser, NoiseInput, NoisyClassifier, SubVPSDE
from sde.checkpoint.spec import build_denoiser, describe_inputs, describe_sde, imports_of
from tests.sde.small_training import SPEC

T = torch.tensor([0.9, 0.5, 0.123, 0.011], dtype=torch.float64)


class Spy(nn.Module):
    """A network F = cos(2 x + c_noise / 100), which keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x, c_noise, cond=None):
        self.seen.append((x, c_noise))
        return torch.cos(2 * x + c_noise[:, None] / 100)


@pytest.fixture
def x(generator):
    return 3 * torch.randn(4, 3, generator=generator, dtype=torch.float64)


def ask(sde, x, parametrization, of, scaled_input=False, sigma_data=0.5, **options):
    """The model, and what its network saw and answered at times T."""
    spy = Spy()
    model = Denoiser(spy, sde, parametrization, sigma_data, noise_input=NoiseInput(of, **options),
                     scaled_input=scaled_input)  # fmt: skip
    denoised = model(x, T)
    (inputs, told), output = spy.seen[0], spy(*spy.seen[0])
    return model, denoised, inputs, told, output


@pytest.mark.parametrize(("sde", "std"), [
    (VPSDE(), lambda log_mean: (1 - (2 * log_mean).exp()).sqrt()),
    (SubVPSDE(), lambda log_mean: 1 - (2 * log_mean).exp()),
])  # fmt: skip
def test_score_sde_vp_and_subvp(sde, std, x):
    """``get_score_fn``: labels 999 t, score = -F(x, labels) / std."""
    model, _, inputs, told, output = ask(sde, x, "noise", "time", scale=999.0)
    assert torch.equal(inputs, x)
    torch.testing.assert_close(told, 999 * T)
    log_mean = -0.25 * T**2 * (20 - 0.1) - 0.5 * T * 0.1
    torch.testing.assert_close(model.score(x, T), -output / std(log_mean)[:, None])


def test_score_sde_ve(x):
    """Labels sigma(t); the score is F itself."""
    model, _, inputs, told, output = ask(VESDE(), x, "score", "noise_level", scale=1.0)
    assert torch.equal(inputs, x)
    torch.testing.assert_close(told, 0.01 * 5000**T)
    torch.testing.assert_close(model.score(x, T), output)


def test_score_sde_ve_discrete():
    """The labels are numbers in the descending list of sigmas, exp(linspace(log sigma_max, log sigma_min, N))."""
    sde, spy = VESDE(), Spy()
    told = NoiseInput("time", scale=-999.0, shift=999.0, rounding="nearest")
    model = Denoiser(spy, sde, "score", noise_input=told, scaled_input=False)
    sigmas = torch.linspace(math.log(50), math.log(0.01), 1000, dtype=torch.float64).exp()
    times = sde.t_of_noise_level(sigmas.clamp(0.01, 50))
    for dtype in (torch.float64, torch.float32):
        model(torch.zeros(1000, 1), times.to(dtype))
        assert spy.seen[-1][1].tolist() == list(range(1000)), dtype
    model(torch.zeros(1, 1), torch.tensor(0.5004, dtype=torch.float64))
    assert spy.seen[-1][1].item() == 499


def test_edm_vp(x):
    """VPPrecond: x = x_0 + sigma n, c_in = (sigma^2 + 1)^-1/2, c_noise = (M - 1) t(sigma), D = x - sigma F."""
    sde = VPSDE(t_min=1e-5)
    _, denoised, inputs, told, output = ask(sde, x, "noise", "time", scaled_input=True, sigma_data=1.0, scale=999.0)
    sigma, theirs = sde.noise_level(T), x / sde.alpha(T)[:, None]
    torch.testing.assert_close(inputs, theirs / (sigma**2 + 1).sqrt()[:, None])
    torch.testing.assert_close(told, 999 * ((0.1**2 + 2 * 19.9 * (sigma**2 + 1).log()).sqrt() - 0.1) / 19.9)
    torch.testing.assert_close(denoised, theirs - sigma[:, None] * output)


def test_edm_ve(x):
    """VEPrecond: c_in = 1, c_noise = log(sigma / 2), D = x + sigma F."""
    sde = VESDE(0.02, 100)
    _, denoised, inputs, told, output = ask(sde, x, "scaled_score", "log_noise_level", scale=1.0, shift=-math.log(2))
    assert torch.equal(inputs, x)
    torch.testing.assert_close(told, (0.5 * sde.sigma(T)).log())
    torch.testing.assert_close(denoised, x + sde.sigma(T)[:, None] * output)


def test_edm_and_k_diffusion(x):
    """EDMPrecond, table 1 of Karras et al. 2022: the defaults."""
    model = Denoiser(spy := Spy(), VESDE(0.002, 80), sigma_data=0.6)
    denoised, ((inputs, told),) = model(x, T), spy.seen
    sigma = model.sde.sigma(T)
    torch.testing.assert_close(told, sigma.log() / 4)
    torch.testing.assert_close(inputs, x / (0.6**2 + sigma**2).sqrt()[:, None])
    skip, out = 0.6**2 / (sigma**2 + 0.6**2), sigma * 0.6 / (sigma**2 + 0.6**2).sqrt()
    torch.testing.assert_close(denoised, skip[:, None] * x + out[:, None] * spy(inputs, told))


@pytest.mark.parametrize("of", ["log_noise_level", "noise_level", "time"])
def test_one_number_for_a_time_whoever_asks(of, process):
    """Of one time, of the times of a run, of a batch, of a time that is differentiated, and by a classifier."""
    told = NoiseInput(of, scale=7.0, shift=-0.3, rounding="down" if of == "time" else None)
    spy, times = Spy(), process.t_min + (process.t_max - process.t_min) * T
    model, classifier = Denoiser(spy, process, noise_input=told), NoisyClassifier(spy, process, noise_input=told)
    x = torch.zeros(4, 3)
    model(x, times)
    batch = spy.seen[-1][1]
    for row, (t, point) in enumerate(zip(times, process.points(times), strict=True)):
        for asked in (model, classifier):
            for time in (t, point, t.clone().requires_grad_()):
                asked(x, time)
                assert torch.equal(spy.seen[-1][1], batch[row].expand(4))
        assert model.coefficients(t)[3] == pytest.approx(model.coefficients(times)[3][row].item(), rel=1e-14)


def test_the_time_is_that_of_the_process_of_training(x):
    """A model seen through another process tells its network what it was told before."""
    spy = Spy()
    model = Denoiser(spy, VPSDE(t_min=1e-5), "noise", 1.0, noise_input=NoiseInput("time", 999.0))
    expected, told = model(x, T), spy.seen[-1][1]
    model.sde = VESDE(0.002, 80)
    levels = VPSDE(t_min=1e-5).noise_level(T)
    times = model.sde.t_of_noise_level(levels[1:].clamp(max=80))
    torch.testing.assert_close(model((x / VPSDE().alpha(T)[:, None])[1:], times), expected[1:])
    torch.testing.assert_close(spy.seen[-1][1], told[1:])
    torch.testing.assert_close(model.network_time(model.sde.level(times[0])), told[1].item())
    # What it never had is told as the nearest that it had.
    model.sde = VESDE(0.002, 1000)
    model(x[:1], torch.tensor(1.0))
    assert spy.seen[-1][1].item() == pytest.approx(999)
    assert describe_inputs(model)["noise_input"]["process"] == describe_sde(VPSDE(t_min=1e-5))


def test_specs():
    told = {"of": "time", "scale": 999.0, "shift": 2.0, "rounding": "down", "process": None}
    old = build_denoiser(SPEC)
    assert describe_inputs(old) == {}
    assert (old.noise_input, old.scaled_input) == (NoiseInput(), True)
    for process in (None, describe_sde(VESDE())):
        given = {"noise_input": {**told, "process": process}, "scaled_input": False}
        model = build_denoiser(json.loads(json.dumps({**SPEC, **given})))
        assert describe_inputs(model) == given
        assert model.noise_input.process == (VESDE() if process else model.sde)
    hidden = {**SPEC, "noise_input": {**told, "process": {"name": "package.module:Class"}}}
    assert imports_of(hidden) == {"package.module:Class"}, "a file does not choose what is imported"
    inside = {**SPEC, "network": {"name": "sde.networks.unet:nn.Linear"}}
    assert imports_of(inside) == {"sde.networks.unet:nn.Linear"}, "nor among what this project imports"
    with pytest.raises(ValueError, match="noise_input = 'time' does not take these options"):
        build_denoiser({**SPEC, "noise_input": {**told, "offset": 1}})


class Mine(SDE):
    def log_alpha(self, t):
        return -t

    def sigma(self, t):
        return t


@pytest.mark.parametrize(("options", "words"), [
    ({"of": "alpha"}, "of = 'alpha': needs one of log_noise_level, noise_level, time, step"),
    ({"scale": 0.0}, "finite numbers, and a scale"),
    ({"shift": math.nan}, "finite numbers"),
    ({"rounding": "up"}, "'up': needs one of down, nearest, or None"),
    ({"process": VPSDE()}, "log_noise_level is that of every process"),
    ({"of": "step"}, "Mine has no steps: needs a chain"),
])  # fmt: skip
def test_refusals(options, words):
    with pytest.raises(ValueError, match=words):
        Denoiser(Spy(), Mine(), noise_input=NoiseInput(**options))
