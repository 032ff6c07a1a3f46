"""Adams steps of each sample's own: exact on polynomials, to the tolerance on exact targets, alone as in a batch."""

import math

import numpy as np
import pytest
import torch

from samplers import ODE, AdaptiveAdams, generate, sample
from samplers.calls import Watch
from samplers.grid import make_grid
from samplers.noise.seeded import SeededNoise
from samplers.numerics.adams import ORDER, choose, combine, divided_differences, newton_integrals
from sde import VPSDE
from sde.guidance.classifier_free import ClassifierFree
from tests.oracles.by_class import ByClass
from tests.oracles.exact import Gaussian, GaussianMixture
from tests.oracles.watched import MIXTURE, Watched


def test_steps_are_exact_on_polynomials(generator):
    """Those of degree below the number of values, at nodes of each row's own."""
    nodes = 0.3 * torch.rand(5, ORDER, generator=generator, dtype=torch.float64).cumsum(1).numpy()
    end = nodes[:, 0] - np.linspace(0.1, 0.5, 5)
    for degree in range(ORDER):
        values = [torch.from_numpy(column**degree)[:, None].expand(5, 3) for column in nodes.T]
        weights = newton_integrals(nodes[:, :-1], nodes[:, 0], end)
        found = combine(torch.zeros(5, 3, dtype=torch.float64), weights, divided_differences(nodes, values))
        exact = (end ** (degree + 1) - nodes[:, 0] ** (degree + 1)) / (degree + 1)
        np.testing.assert_allclose(found, np.repeat(exact[:, None], 3, 1), rtol=1e-12, atol=1e-13)


def test_a_step_is_as_long_as_its_error_allows():
    """v = phi^2 / 2 seen at two places: the term that order 1 leaves out is known, and so is where it is too large."""
    nodes, tolerance = np.array([[1.0, 1.1], [1.0, 1.1]]), 1e-3
    slopes = np.array([1.05, 4.2])
    found = choose(nodes, np.stack([nodes[:, 0], slopes], 1), np.array([0.9, 0.9]), np.array([0.4, 0.4]), tolerance)
    assert (found.order == 2).all()
    # |[f_0, f_1]| h^2 / 2 is the tolerance; the steps that are weighed are a factor of 1.17 apart.
    most = np.sqrt(2 * tolerance / slopes)
    assert ((found.step <= most) & (found.step > most / 1.18)).all()
    assert not found.lands.any()


def test_steps_are_corrected_through_one_more_value():
    """A whole run written out from what the network was asked and said: every predicted state is the integral of the
    polynomial through the last k values from a state that the one through k + 1, with its end's, has corrected."""
    model, times = _mixture(VPSDE()), make_grid(VPSDE(), "log_snr", 1)
    asked: list = []
    with Watch(model, see=lambda *call: asked.append(call)):
        end = sample(model, AdaptiveAdams(1e-4), torch.tensor([[0.7, -1.2]]).double(), times, denoise=False)
    angles, states, values = [], [], []
    for x, t, denoised in (*asked, (end, times[1:], end)):
        alpha, sigma = VPSDE().alpha(t).item(), VPSDE().sigma(t).item()
        angles.append(math.atan2(sigma, alpha))
        states.append((x[0] / math.hypot(sigma, alpha)).numpy())
        values.append((math.cos(angles[-1]) * states[-1] - denoised[0].numpy()) / math.sin(angles[-1]))

    def integral(first, newest, i):
        """From the angle i to the next of the polynomial through the values from ``first`` to ``newest``."""
        nodes, length = np.array(angles[first : newest + 1]) - angles[i], angles[i + 1] - angles[i]
        powers = np.polyfit(nodes, np.array(values[first : newest + 1]), newest - first)[::-1]
        return sum(power * length ** (n + 1) / (n + 1) for n, power in enumerate(powers))

    y, orders = states[0], []
    for i, goal in enumerate(states[1:]):
        gaps = [np.abs(y + integral(i + 1 - k, i, i) - goal).max() for k in range(1, min(ORDER, i + 1) + 1)]
        orders.append(int(np.argmin(gaps)) + 1)
        assert min(gaps) < 1e-9, (i, gaps)
        y = y + integral(i + 1 - orders[-1], i + 1, i)
    assert {*orders} == {*range(1, ORDER + 1)}


TOLERANCES = (0.03, 0.01, 1e-3, 1e-4)


def test_the_error_follows_the_tolerance(process):
    """Of a Gaussian and of a mixture: below it in 19 of 20 samples, falling with it, at more calls."""
    gaussian, mixture = Gaussian(process, torch.tensor([0.7, -0.3], dtype=torch.float64), 0.4), _mixture(process)
    z = SeededNoise(range(24))(torch.empty(24, 2, dtype=torch.float64)) * process.prior_std()
    times = make_grid(process, "log_snr", 1)
    ends = {
        gaussian: gaussian.flow(z, times[0], times[-1]),
        mixture: sample(mixture, ODE(1e-6, 1e-6), z, times, denoise=False),
    }
    for model, end in ends.items():
        errors, calls = [], []
        for tolerance in TOLERANCES:
            out, nfe = _run(model, z, times, tolerance)
            errors.append((out - end).square().mean(1).sqrt().quantile(0.95).item())
            calls.append(nfe.mean().item())
            # An open noise end has its first step, which neglects a thousandth of the data.
            assert errors[-1] < tolerance + 2e-3 * process.open_end, (model, tolerance, errors)
        assert sorted(calls) == calls
        assert calls[0] < 20
        assert calls[-1] > 1.5 * calls[0]
        if not process.open_end:
            assert errors[-1] < 2e-2 * errors[0], errors


def _mixture(process):
    return GaussianMixture(process, MIXTURE, 0.3)


def _run(model, x, times, tolerance):
    with Watch(model, len(x)) as watch:
        return sample(model, AdaptiveAdams(tolerance), x, times, denoise=False), watch.nfe


def test_samples_take_unequal_calls_and_are_the_same_alone():
    """In a batch of 64, of 7 and alone, guided, in chunks that are filled up."""
    labels = torch.arange(64) % 3
    sampler = AdaptiveAdams(0.01)

    def drawn(first, count, **options):
        model = ClassifierFree(ByClass(VPSDE()), labels[first : first + count], 2.0)
        return generate(model, sampler, count, (2,), first=first, **options)

    whole = drawn(0, 64)
    assert len(whole.nfe.unique()) > 2
    for first, count, size in ((7, 1, None), (20, 1, None), (5, 7, None), (3, 7, 4)):
        part = drawn(first, count, batch_size=size)
        assert torch.equal(part.nfe, whole.nfe[first : first + count])
        torch.testing.assert_close(part.x, whole.x[first : first + count], rtol=0, atol=1e-10)


def test_calls_are_those_of_the_network():
    model = Watched()
    found = generate(model, AdaptiveAdams(0.01), 9, (2,))
    assert found.nfe.sum() == sum(rows for rows, _ in model.seen)
    assert found.nfe.min() < found.nfe.max() == len(model.seen)


def test_padding_changes_nothing():
    """The error is that of what is real: beside nine times as many zeros, the same steps."""
    short, long = (
        generate(
            Gaussian(VPSDE(), torch.full((length,), 0.7, dtype=torch.float64), 0.3),
            AdaptiveAdams(1e-3), 4, (length,), sizes=[3] * 4,
        )
        for length in (3, 30)
    )  # fmt: skip
    assert torch.equal(long.nfe, short.nfe)
    torch.testing.assert_close(long.x[:, :3], short.x, rtol=0, atol=1e-10)


def test_single_precision_stays_single():
    model = GaussianMixture(VPSDE(), MIXTURE.float(), 0.3)
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    times = make_grid(VPSDE(), "log_snr", 1)
    out = sample(model, AdaptiveAdams(1e-3), x, times)
    assert out.dtype == torch.float32
    exact = sample(_mixture(VPSDE()), AdaptiveAdams(1e-3), x.double(), times)
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("options", "words"), [
    ({"tolerance": 0.0}, "tolerance = 0.0: needs a finite number above 0"),
    ({"tolerance": math.nan}, "tolerance = nan"), ({"tolerance": -1.0}, "tolerance = -1.0"),
    ({"tolerance": math.inf}, "tolerance = inf"), ({"max_nfe": 0}, "max_nfe = 0: needs an integer of at least 1"),
])  # fmt: skip
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        AdaptiveAdams(**options)


def test_failures_name_the_sample():
    with pytest.raises(ArithmeticError, match=r"^sample 3 took 20 calls and is at sigma / alpha = .*max_nfe = 20$"):
        generate(Watched(), AdaptiveAdams(1e-8, max_nfe=20), 2, (2,), first=3)

    class Rough(Watched):
        def forward(self, x, t):
            return super().forward(x.double(), t).float() + 1e-4 * (-1) ** len(self.seen)

    # Its output is finite, and the tolerance is to blame.
    with pytest.raises(ArithmeticError, match=r"^sample 0 is at .* tolerance = 1e-12 asks for are lost in rounding"):
        generate(Rough().float(), AdaptiveAdams(1e-12), 2, (2,))

    class Broken(Watched):
        def forward(self, x, t):
            return torch.where(((t < 0.5) & (x[:, 0] > 0))[:, None], math.nan, super().forward(x, t))

    with pytest.raises(FloatingPointError, match=r"^sample \d+ became non-finite at sigma / alpha = "):
        generate(Broken(), AdaptiveAdams(0.01), 8, (2,))
