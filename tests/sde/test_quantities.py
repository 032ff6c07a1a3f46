"""Conversions between what models predict: by their definitions, there and back, and of foreign outputs."""

from itertools import permutations

import pytest
import torch

from sde import VPSDE, Denoiser, FlowSDE
from sde.model.denoiser import FINITE_WITHOUT_SIGNAL, PARAMETRIZATIONS
from sde.model.quantities import QUANTITIES, convert
from tests.oracles.exact import GaussianMixture
from tests.oracles.processes import ending_with_signal, interior


def states(sde, generator):
    """Times up to both ends, states and D of a mixture at them, and the bound of errors."""
    t = torch.cat([interior(sde), torch.tensor([sde.t_min, sde.t_max], dtype=torch.float64)])
    means = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    model = GaussianMixture(sde, means, 0.3)
    x = sde.perturb(model.draw(len(t), generator), t, torch.randn(len(t), 4, generator=generator, dtype=torch.float64))
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    bound = 1e-14 * (1 + sigma / alpha + alpha / sigma)[:, None] * (x.abs() + model(x, t).abs())
    return model, x, t, bound


def test_definitions(process, generator):
    """Each written out with n = (x - alpha D) / sigma, and as the score model has it."""
    model, x, t, _ = states(process, generator)
    d = model(x, t)
    alpha, sigma, da, ds = (
        f(t)[:, None] for f in (process.alpha, process.sigma, process.alpha_rate, process.sigma_rate)
    )
    n = (x - alpha * d) / sigma
    written = {"denoised": d, "noise": n, "score": -n / sigma, "flow": n - d, "velocity": da * d + ds * n,
               "v": (alpha * n - sigma * d) / (alpha**2 + sigma**2).sqrt()}  # fmt: skip
    assert written.keys() == QUANTITIES.keys()
    for name, value in written.items():
        found = convert(d, x, t, process, "denoised", name)
        # The score has x / sigma^2, and what rounding leaves of it.
        scale = sigma.clamp(max=1) ** 2
        torch.testing.assert_close(found * scale, value * scale, rtol=1e-12, atol=1e-13)
        if hasattr(model, name):
            torch.testing.assert_close(getattr(model, name)(x, t) * scale, value * scale, rtol=1e-12, atol=1e-13)


def test_round_trips(process, generator):
    """From D through any two quantities and back, at both ends and between; at an open noise end through those that
    tell D there."""
    model, x, t, bound = states(process, generator)
    d = model(x, t)
    for first, second in permutations(QUANTITIES, 2):
        ends = process.open_end and {first, second} & {"noise", "score"}
        rows = slice(None, -1 if ends else None)
        at, point, time = d[rows], x[rows], t[rows]
        there = convert(at, point, time, process, "denoised", first)
        across = convert(there, point, time, process, first, second)
        back = convert(across, point, time, process, second)
        assert ((back - at).abs() <= bound[rows]).all(), (first, second)


@pytest.mark.parametrize("name", ["noise", "denoised", "v", "score", "flow"])
def test_they_are_what_networks_of_the_parametrizations_predict(name, process, generator):
    sde = process if name in FINITE_WITHOUT_SIGNAL else ending_with_signal(process)
    model, x, t, _ = states(sde, generator)
    output = convert(model(x, t), x, t, sde, "denoised", name)
    denoiser = Denoiser(lambda *args: output, sde, name)
    torch.testing.assert_close(denoiser(x, t), model(x, t), rtol=1e-9, atol=1e-9)
    assert name in PARAMETRIZATIONS


def test_an_output_of_a_library_whose_time_runs_the_other_way(generator):
    """x_t = t x_1 + (1 - t) x_0 with noise x_0: its velocity is E[x_1 - x_0 | x_t], minus ours at 1 - t."""
    sde, their_t = FlowSDE(), 0.3
    means = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    model, x = GaussianMixture(sde, means, 0.3), torch.randn(5, 4, generator=generator, dtype=torch.float64)
    ours = torch.tensor(1 - their_t, dtype=torch.float64)
    d = model(x, ours)
    theirs = d - (x - their_t * d) / (1 - their_t)
    torch.testing.assert_close(convert(-theirs, x, ours, sde, "velocity"), d)


def test_what_is_refused():
    sde, x, end = FlowSDE(), torch.ones(3, 2), torch.ones((), dtype=torch.float64)
    with pytest.raises(ValueError, match="given = 'eps': needs one of denoised, noise, score, v, flow, velocity"):
        convert(x, x, end, sde, "eps")
    with pytest.raises(ValueError, match="wanted = 'x0': needs one of"):
        convert(x, x, end, sde, "flow", "x0")
    for t in (end, torch.ones(3)):
        with pytest.raises(ValueError, match="given = 'noise' at t = 1: alpha is 0 there, and it does not tell"):
            convert(x, x, t, sde, "noise")
    with pytest.raises(ValueError, match=r"value has shape \(3,\), x \(3, 2\)"):
        convert(x[:, 0], x, end, sde, "flow")
    with pytest.raises(ValueError, match="t = 2"):
        convert(x, x, 2 * end, VPSDE(), "noise")
