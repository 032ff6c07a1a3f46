"""Where in time each part of a composed step acts, by formulas of their own: network calls, noise, guidance."""

from itertools import pairwise

import pytest
import torch

from samplers import SAMPLERS, Heun, PredictorCorrector, SASolver, SeededNoise, sample
from samplers.langevin import AnnealedLangevin, Langevin
from samplers.repaint import RePaint
from sde import VPSDE, Transform
from sde.guidance import Autoguidance, Classifier
from tests.batteries.tiers import ADAPTIVE
from tests.batteries.variants import VARIANTS
from tests.oracles.exact import Gaussian
from tests.oracles.noises import nothing
from tests.oracles.processes import PROCESSES

GRID = torch.tensor([0.9, 0.55, 0.3, 0.1], dtype=torch.float64)


class Spy(Gaussian):
    """Keeps the times of its calls, and the state of each."""

    def __init__(self, sde, dim=2):
        super().__init__(sde, torch.zeros(dim, dtype=torch.float64), 0.5)
        self.times, self.states = [], []

    def forward(self, x, t):
        # Adaptive samplers have a time for each sample.
        self.times.extend(t.unique().tolist())
        self.states.append(x)
        return super().forward(x, t)


def along(times, model, sampler):
    return sample(model, sampler, torch.ones(2, 2, dtype=torch.float64), times, SeededNoise([1, 2]))


def within(fraction):
    """The time at a fraction of a step in log(alpha / sigma)."""

    def at(sde, t, s):
        start, end = sde.log_snr(t), sde.log_snr(s)
        return sde.t_of_log_snr(start + fraction * (end - start))

    return at


def start(sde, t, s):
    return t


def end(sde, t, s):
    return s


CALLS = {
    "heun": (start, end),
    "dpm2": (start, within(1 / 2)),
    "dpmpp-2s": (start, within(1 / 2)),
    "dpmpp-3s": (start, within(1 / 3), within(2 / 3)),
    "langevin": (end, end, end),
    # The predictor's call, then the corrector's.
    "pc": (start, end),
    **{name: (start, end, end, end) for name in VARIANTS if name.startswith("pc-")},
    "pc-heun": (start, end, end, end, end),
    "pc-dpm2": (start, within(1 / 2), end, end, end),
}
"""The calls of a step from t to s of samplers that take more than the one at t."""


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in ADAPTIVE])
def test_network_calls(name):
    """Of a whole run, the last call at the end of its grid included."""
    for process in (PROCESSES["vp"], PROCESSES["straight"]):
        model = Spy(process)
        along(GRID, model, VARIANTS[name])
        calls = CALLS.get(name, (start,))
        expected = [at(process, t, s) for t, s in pairwise(GRID) for at in calls] + [GRID[-1]]
        assert model.times == pytest.approx([float(t) for t in expected], abs=1e-9)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_calls_of_adaptive_samplers_stay_between(name):
    model = Spy(VPSDE())
    along(GRID[[0, 2]], model, SAMPLERS[name]())
    assert [max(model.times), min(model.times), model.times[-1]] == pytest.approx([0.9, 0.3, 0.3])


def test_churn_calls():
    """At the earlier time that the noise leads up to, a factor of sigma / alpha from t, then at s."""
    model, r = Spy(PROCESSES["straight"]), GRID / (1 - GRID)
    sample(model, Heun(churn=0.1), torch.ones(1, 2, dtype=torch.float64), GRID, nothing)
    stirred = [t * (t / s) ** 0.1 for t, s in pairwise(r.tolist())]
    expected = [time for ratio, s in zip(stirred, GRID[1:].tolist(), strict=True) for time in (ratio / (1 + ratio), s)]
    assert model.times == pytest.approx([*expected, 0.1], abs=1e-9)


def test_repaint_calls():
    model = Spy(VPSDE())
    along(GRID, model, RePaint(SAMPLERS["heun"](), 2))
    expected = [u for t, s in pairwise(GRID.tolist()) for u in (t, s, t, s)]
    assert model.times == pytest.approx([*expected, 0.1])


class Null(Gaussian):
    """D = 0, so that the score is -x / sigma^2 and every step a multiplication and an addition of noise."""

    def __init__(self, sde):
        super().__init__(sde, torch.zeros(1, dtype=torch.float64), 1e-9)


def responses(sampler, model, t, s):
    """How a step answers to a state of 1, and to each of its random numbers."""

    def probe(which):
        count = -1

        def noise(x):
            nonlocal count
            count += 1
            return torch.full_like(x, float(count == which))

        out, _ = sampler.step(model, torch.zeros(1, 1, dtype=torch.float64), t, s, noise)
        return out.item(), count

    number = probe(-1)[1] + 1
    draws = [probe(which)[0] for which in range(number)]
    kept, _ = sampler.step(model, torch.ones(1, 1, dtype=torch.float64), t, s, nothing)
    return kept.item(), draws


def test_where_noise_enters():
    """Each number's way to the end of the step: what comes after it shrinks it, what comes before does not."""
    sde = PROCESSES["straight"]
    model, (t, s) = Null(sde), torch.tensor([0.6, 0.3], dtype=torch.float64)
    ratio = 0.5
    size = 0.3 * 0.3**2
    left = 1 - size / 0.3**2
    corrected = [(2 * size) ** 0.5 * left**k for k in (2, 1, 0)]
    # DDIM on D = 0 keeps x / sigma; ancestral steps keep (sigma_s / sigma_t)^2 (alpha_t / alpha_s).
    kept, draws = responses(PredictorCorrector(SAMPLERS["ddim"](), AnnealedLangevin(0.3, 3)), model, t, s)
    assert kept == pytest.approx(ratio * left**3)
    assert draws == pytest.approx(corrected)
    kept, draws = responses(PredictorCorrector(SAMPLERS["ancestral"](), AnnealedLangevin(0.3, 3)), model, t, s)
    mean = (0.3 / 0.6) ** 2 * (0.4 / 0.7)
    std = (0.3**2 - (mean * 0.6) ** 2) ** 0.5
    assert kept == pytest.approx(mean * left**3)
    assert draws == pytest.approx([std * left**3, *corrected])
    # Between levels annealed Langevin keeps x / alpha.
    kept, draws = responses(AnnealedLangevin(0.3, 3), model, t, s)
    assert kept == pytest.approx(0.7 / 0.4 * left**3)
    assert draws == pytest.approx(corrected)
    # RePaint: step, jump back to t, step again.
    kept, draws = responses(RePaint(SAMPLERS["ddim"](), 2), model, t, s)
    back = 0.4 / 0.7
    assert kept == pytest.approx(ratio * back * ratio)
    assert draws == pytest.approx([ratio * (0.6**2 - (back * 0.3) ** 2) ** 0.5])
    # Churn: noise up to u, then the whole way from there.
    kept, draws = responses(Heun(churn=0.25), model, t, s)
    r = 1.5 * (1.5 / (0.3 / 0.7)) ** 0.25
    u = r / (1 + r)
    up = (1 - u) / 0.4
    assert kept == pytest.approx(up * 0.3 / u)
    assert draws == pytest.approx([(u**2 - (up * 0.6) ** 2) ** 0.5 * 0.3 / u])


class Still(Gaussian):
    """D = x / alpha, so that the predicted noise and the score are 0, and x / alpha only gathers noise."""

    def forward(self, x, t):
        return x / self.sde.alpha(t)


@pytest.mark.parametrize("eta", [0.5, 1.0, 1.5])
def test_noise_of_the_reverse_sde(eta):
    """That of a step is exact where what the method holds fixed is constant: D = 0, or no predicted noise."""
    sde = PROCESSES["straight"]
    t, s = torch.tensor([0.6, 0.3], dtype=torch.float64)
    # sigma / alpha falls from 3 / 2 to 3 / 7.
    ratio = (3 / 7) / (3 / 2)
    kept, (draw,) = responses(SASolver(1, "denoised", eta), Null(sde), t, s)
    assert kept == pytest.approx(0.3 / 0.6 * ratio ** (eta**2))
    # The law N(0, sigma_t^2) becomes N(0, sigma_s^2).
    assert (kept * 0.6) ** 2 + draw**2 == pytest.approx(0.3**2)
    kept, (draw,) = responses(SASolver(1, "noise", eta), Still(sde, torch.zeros(1, dtype=torch.float64), 1.0), t, s)
    assert kept == pytest.approx(0.7 / 0.4)
    assert draw == pytest.approx(eta * 0.7 * ((3 / 2) ** 2 - (3 / 7) ** 2) ** 0.5)


def test_noise_of_plain_steps_is_that_of_their_departure():
    """Euler-Maruyama: eta g(t) sqrt(t - s); reverse diffusion: that of the forward step from s to t."""
    sde, (t, s) = PROCESSES["straight"], torch.tensor([0.6, 0.3], dtype=torch.float64)
    # alpha = 1 - t, sigma = t: g^2 = d sigma^2 / dt - 2 f sigma^2 = 2 t / (1 - t).
    _, (draw,) = responses(SAMPLERS["euler_maruyama"](), Null(sde), t, s)
    assert draw == pytest.approx((2 * 0.6 / 0.4 * 0.3) ** 0.5)
    _, (draw,) = responses(SAMPLERS["reverse_diffusion"](), Null(sde), t, s)
    assert draw == pytest.approx((0.6**2 - (0.4 / 0.7 * 0.3) ** 2) ** 0.5)


def test_a_corrector_asks_at_the_state_it_moves():
    """Each turn's score is that of the state before it, at the time of arrival."""
    model = Spy(VPSDE())
    x = torch.ones(1, 2, dtype=torch.float64)
    out, _ = Langevin(0.1, 2).step(model, x, GRID[0], GRID[1], nothing)
    first = x + _size(model, x, GRID[1]) * model.score(x, GRID[1])
    torch.testing.assert_close(model.states[1], first)
    torch.testing.assert_close(out, first + _size(model, first, GRID[1]) * model.score(first, GRID[1]))


def _size(model, x, s):
    return (2 * 0.1**2 / model.score(x, s).square().mean()).clamp(max=model.sde.sigma(s) ** 2)


def test_a_run_starts_and_ends_where_its_grid_does():
    """The callback sees the state of each arrival; the last call is made of the last state."""
    model, seen = Spy(VPSDE()), []
    out = sample(
        model,
        SAMPLERS["euler"](),
        torch.ones(2, 2, dtype=torch.float64),
        GRID,
        callback=lambda *a: seen.append(a) and None,
    )
    assert [step for step, _, _ in seen] == [0, 1, 2]
    assert [float(s) for _, s, _ in seen] == GRID[1:].tolist()
    for (_, _, x), state in zip(seen, model.states[1:], strict=True):
        assert torch.equal(x, state)
    torch.testing.assert_close(out, Gaussian.forward(model, seen[-1][2], GRID[-1]))


def test_guides_are_asked_where_the_model_is():
    """The weak model and the classifier see the state and the time that the denoiser sees."""
    weak, model = Spy(VPSDE()), Spy(VPSDE())
    along(GRID, Autoguidance(model, weak, 2.0), SAMPLERS["dpmpp"](2, True))
    assert weak.times == model.times
    assert all(torch.equal(a, b) for a, b in zip(weak.states, model.states, strict=True))

    seen = []

    class Judge(torch.nn.Module):
        sde, transform, num_classes = VPSDE(), Transform(), 2

        def forward(self, x, t):
            seen.append(float(t))
            return torch.stack([x.sum(1), -x.sum(1)], 1)

    model = Spy(VPSDE())
    along(GRID, Classifier(model, Judge(), torch.tensor([0, 1]), 1.5), SAMPLERS["heun"]())
    assert seen == pytest.approx(model.times)
