"""Padded items: what is real is drawn, encoded and measured as if it stood alone, whatever lies beside it."""

import math

import pytest
import torch

from samplers import (
    SAMPLERS,
    SCORE_SAMPLERS,
    decode,
    dequantized,
    discrete_bound,
    encode,
    generate,
    likelihood_report,
    log_likelihood,
    variational_bound,
)
from samplers.padding import Padded, filled, real
from sde import VPSDE, ScoreModel, Transform
from sde.process.coefficients import expand
from tests.oracles.exact import Gaussian

SIZES = [3, 5, 1, 4]
TRANSFORM = Transform((0.5, -1.0), (2.0, 0.25))
ADAPTIVE = {"rtol": 1e-8, "atol": 1e-8}


class Mixed(ScoreModel):
    """Looks at all entries of an item alike, and says something where nothing is: what is padded would matter."""

    def __init__(self, sde=None, transform=None):
        super().__init__(sde or VPSDE(), transform)
        self.register_buffer("like", torch.zeros(1, dtype=torch.float64))

    def forward(self, x, t):
        alpha, sigma = expand(self.sde.alpha(t), x), expand(self.sde.sigma(t), x)
        gain = alpha / (alpha**2 + sigma**2)
        return 0.3 + gain * (0.6 * x + 0.1 * x.flatten(1).sum(1).tanh().view(-1, *[1] * (x.ndim - 1)))


def alone(function, x, model=None):
    """function(model, item, first) of what is real of each item."""
    model = model or (lambda size: Mixed(transform=TRANSFORM))
    return [function(model(size), x[i : i + 1, :, :size], i) for i, size in enumerate(SIZES)]


def items(channels=2, length=5):
    return torch.randn(4, channels, length, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def hidden(x, value=torch.nan):
    return torch.where(real(torch.tensor(SIZES), x.shape[1:]), x, value)


@pytest.mark.parametrize("name", SCORE_SAMPLERS)
def test_samples_are_those_of_their_size(name):
    """However far they are padded, with a network that looks at everything, as without any padding."""
    loose = {"rtol": 0.1, "atol": 0.1} if name == "reverse_sde" else {}
    sampler, found = SAMPLERS[name](**loose), []
    for length in (5, 8):
        drawn = generate(Mixed(transform=TRANSFORM), sampler, 4, (2, length), steps=3, sizes=SIZES, seed=2)
        assert drawn.sizes.tolist() == SIZES
        assert drawn.x.equal(hidden(drawn.x, 0.0))
        found.append(drawn.x)
    assert found[1][..., 5:].eq(0).all()
    torch.testing.assert_close(found[0], found[1][..., :5], rtol=0, atol=1e-9)
    for i, size in enumerate(SIZES):
        one = generate(Mixed(transform=TRANSFORM), sampler, 1, (2, size), steps=3, seed=2, first=i).x[0]
        torch.testing.assert_close(found[0][i, :, :size], one, rtol=0, atol=1e-9)


def test_from_data():
    """Sampling that begins at items reads what is real of them."""
    options = {"steps": 4, "sizes": SIZES, "start_time": 0.5}
    first, second = (
        generate(Mixed(), SAMPLERS["ancestral"](), 4, (2, 5), start=hidden(items(), fill), **options).x
        for fill in (0.0, torch.nan)
    )
    assert first.equal(second)


def test_latents():
    x = items()
    found = encode(Mixed(transform=TRANSFORM), hidden(x), sizes=SIZES, **ADAPTIVE)
    again = decode(Mixed(transform=TRANSFORM), found.latent, sizes=torch.tensor(SIZES), **ADAPTIVE)
    assert found.latent.equal(hidden(found.latent, 0.0))
    torch.testing.assert_close(again.x, hidden(x, 0.0), rtol=0, atol=1e-6)
    for row, nfe, one, size in zip(
        found.latent, found.nfe, alone(lambda m, item, _: encode(m, item, **ADAPTIVE), x), SIZES, strict=True
    ):
        torch.testing.assert_close(row[:, :size], one.latent[0], rtol=0, atol=1e-10)
        assert nfe == one.nfe


@pytest.mark.parametrize("probes", [None, 3])
def test_likelihood(probes):
    x = items()
    options = {"probes": probes, **ADAPTIVE}
    found = log_likelihood(Mixed(transform=TRANSFORM), hidden(x), sizes=SIZES, **options)
    one = alone(lambda m, item, first: log_likelihood(m, item, first=first, **options), x)
    torch.testing.assert_close(found.nats, torch.cat([o.nats for o in one]), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.stderr, torch.cat([o.stderr for o in one]), rtol=1e-6, atol=1e-9)


def test_likelihood_in_closed_form():
    """Of entries that are normal and independent, in data units: the sum over what is real."""
    # Data of unit variance stand still in the flow of a process that preserves it.
    sde, x = VPSDE(), items()
    model = Gaussian(sde, torch.zeros(2, 5, dtype=torch.float64), 1.0, transform=TRANSFORM)
    shift, scale = (torch.tensor(values).double().view(2, 1) for values in (TRANSFORM.shift, TRANSFORM.scale))
    each = torch.distributions.Normal(shift, scale * sde.prior_std()).log_prob(x)
    wanted = hidden(each, 0.0).sum((1, 2))
    torch.testing.assert_close(
        log_likelihood(model, hidden(x), sizes=SIZES, **ADAPTIVE).nats, wanted, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("bound", [variational_bound, discrete_bound])
@pytest.mark.parametrize("num_levels", [None, 6])
def test_bounds(bound, num_levels):
    transform = TRANSFORM if num_levels is None else Transform.of_levels(num_levels)
    x = items() if num_levels is None else (items() + 3).clamp(0, 5).floor()
    options = {"draws": 3} | ({"times": 20} if bound is discrete_bound else {})
    found = bound(Mixed(transform=transform), hidden(x), sizes=SIZES, **options)
    one = alone(lambda m, item, i: bound(m, item, first=i, **options), x, lambda size: Mixed(transform=transform))
    for name in ("nats", "prior", "diffusion", "reconstruction"):
        torch.testing.assert_close(getattr(found, name), torch.cat([getattr(o, name) for o in one]), rtol=1e-9, atol=0)


def test_bits_are_of_real_dimensions():
    """The report of padded items has the bits of those that stand alone, by as many dimensions as each has."""
    transform = Transform.of_levels(6)
    x, options = (items() + 3).clamp(0, 5).floor(), {"bound_draws": 2, "discrete_steps": 5, "rtol": 1e-7, "atol": 1e-7}
    found = likelihood_report(Mixed(transform=transform), hidden(x), sizes=SIZES, **options)
    nats = []
    for i, size in enumerate(SIZES):
        # The item has its number's noise.
        own = dequantized(transform, x[..., :size], 0)[i : i + 1]
        nats.append(log_likelihood(Mixed(transform=transform), own, first=i, rtol=1e-7, atol=1e-7).nats)
    torch.testing.assert_close(found.nats, torch.cat(nats), rtol=0, atol=1e-6)
    bits = -torch.cat(nats) / (2 * torch.tensor(SIZES) * math.log(2))
    assert found.ode.mean == pytest.approx(bits.mean().item(), abs=1e-6)
    torch.testing.assert_close(found.in_unit(found.nats, (2, 5), torch.tensor(SIZES)), bits, rtol=0, atol=1e-6)
    assert math.hypot(*found.stderr_parts.values()) == pytest.approx(found.ode.stderr)


def test_a_padded_model_is_one_by_protocol():
    model = Padded(Mixed(transform=TRANSFORM), torch.tensor(SIZES))
    x, t = items(), torch.tensor(0.4, dtype=torch.float64)
    for name in ("__call__", "score", "noise", "velocity"):
        output = getattr(model, name)(hidden(x), t)
        assert output.equal(hidden(output, 0.0))
        assert getattr(model.rows(torch.tensor([2, 1])), name)(x[[2, 1]], t).equal(output[[2, 1]])
    assert model.transform is model.model.transform
    assert (model.normalized, model.null_trained, model.event_shape) == (True, True, None)


def test_what_is_drawn_for_an_item_fills_what_is_real():
    found = filled((2, 3, 4), torch.tensor([2, 4]), lambda row, part: torch.full((5, *part), row + 1.0).numpy(), lead=1)
    assert found.shape == (2, 5, 3, 4)
    assert found[0, ..., :2].eq(1).all()
    assert found[0, ..., 2:].eq(0).all()
    assert found[1].eq(2).all()
