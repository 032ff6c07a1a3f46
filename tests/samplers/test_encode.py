"""Latents against exact flows, round trips, and spherical interpolation."""

import math

import pytest
import torch

from samplers import ODE, SeededNoise, decode, encode, generate, slerp
from sde import VPSDE, Transform
from sde.guidance.classifier_free import ClassifierFree
from tests.batteries.tiers import TWO
from tests.oracles.by_class import LABELS, ByClass
from tests.oracles.exact import Gaussian, GaussianMixture

MEANS = torch.tensor([[-1.5, 0.0], [1.0, 1.0], [0.5, -1.0]], dtype=torch.float64)


def ends(sde):
    return (torch.tensor(t, dtype=torch.float64) for t in (sde.t_min, sde.t_max))


def test_latent_is_the_exact_flow(process, generator):
    model = Gaussian(process, torch.tensor([0.7, -0.3], dtype=torch.float64), 0.4)
    x = model.draw(16, generator)
    t, s = ends(process)
    latent = encode(model, x, rtol=1e-8, atol=1e-8).latent / process.prior_std()
    torch.testing.assert_close(latent, model.flow(x, t, s) / process.prior_std(), rtol=1e-6, atol=1e-6)
    back = decode(model, model.flow(x, t, s), rtol=1e-8, atol=1e-8).x
    torch.testing.assert_close(back, x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("process", TWO, indirect=True)
def test_round_trip(process, generator):
    model = GaussianMixture(process, MEANS, 0.3, transform=Transform((3.0, -1.0), (10.0, 0.5)))
    x = model.transform.decode(model.draw(32, generator))
    errors = []
    for tolerance in (1e-4, 1e-6, 1e-8):
        settings = {"rtol": tolerance, "atol": tolerance}
        encoded = encode(model, x, **settings)
        decoded = decode(model, encoded.latent, **settings)
        assert torch.equal(decoded.x, decoded.values), "continuous data are not quantized"
        errors.append(model.transform.encode(decoded.x).sub(model.transform.encode(x)).square().mean().sqrt().item())
    assert errors[0] < 0.02
    assert errors[1] < errors[0] / 10
    assert errors[2] < errors[1] / 10
    assert errors[2] < 1e-6
    assert encoded.nfe.shape == decoded.nfe.shape == (32,)


def test_latents_are_normal(process, generator):
    """Data of the model have latents of the prior, but for what alpha(t_max) lets through of the data."""
    model = GaussianMixture(process, MEANS, 0.3)
    z = encode(model, model.draw(4000, generator), rtol=1e-4, atol=1e-4).latent / process.prior_std()
    assert z.mean(0).abs().max() < 0.08
    assert (z.std(0) - 1).abs().max() < 0.05
    assert abs(z.T.corrcoef()[0, 1]) < 0.06


@pytest.mark.parametrize("process", TWO, indirect=True)
def test_batch_mates_change_nothing(process, generator):
    model = GaussianMixture(process, MEANS, 0.3)
    x = model.draw(6, generator)
    far = torch.cat([x[:3], 40 * x[3:]])
    alone, beside = encode(model, x[:3]), encode(model, far)
    torch.testing.assert_close(beside.latent[:3], alone.latent, rtol=0, atol=1e-9 * process.prior_std())
    assert torch.equal(beside.nfe[:3], alone.nfe)
    one, both = decode(model, alone.latent), decode(model, beside.latent)
    torch.testing.assert_close(both.x[:3], one.x, rtol=0, atol=1e-9)
    assert torch.equal(both.nfe[:3], one.nfe)


def test_quantised_data_come_back(generator):
    levels = Transform.of_levels(17)
    model = GaussianMixture(VPSDE(), torch.randn(4, 1, 3, 3, generator=generator) * 0.4, 0.2, transform=levels)
    x = levels.quantize(levels.decode(model.draw(20, generator))).long()
    encoded = encode(model, x)
    decoded = decode(model, encoded.latent)
    assert torch.equal(decoded.x, x.float())
    torch.testing.assert_close(decoded.values, x + 0.5, rtol=0, atol=0.02)
    continuous = encode(model, x + 0.5, offset=0.0)
    torch.testing.assert_close(continuous.latent, encoded.latent)


@pytest.mark.parametrize("process", TWO, indirect=True)
def test_guided_models_and_rows(process, generator):
    model = ByClass(process)
    x = model.mixture.draw(6, generator)
    for scale, calls in ((1.0, 1), (2.0, 2)):
        guided = ClassifierFree(model, LABELS, scale)
        encoded = encode(guided, x, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(decode(guided, encoded.latent, rtol=1e-7, atol=1e-7).x, x, rtol=0, atol=1e-4)
        row = encode(guided.rows(slice(4, 5)), x[4:5], rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(row.latent, encoded.latent[4:5], rtol=0, atol=1e-9 * process.prior_std())
        assert (encoded.nfe % calls == 0).all()
    plain = encode(ClassifierFree(model, LABELS, 1.0), x, rtol=1e-8, atol=1e-8).latent
    t, s = ends(process)
    exact = [model.components[k].flow(x[i], t, s) for i, k in enumerate(LABELS.tolist())]
    torch.testing.assert_close(plain / process.prior_std(), torch.stack(exact) / process.prior_std(), rtol=0, atol=1e-6)


def test_seeds_become_the_samples_of_the_ode_sampler():
    model = GaussianMixture(VPSDE(), MEANS.float(), 0.3, transform=Transform((3.0, -1.0), (10.0, 0.5)))
    drawn = generate(model, ODE(), 4, (2,))
    latent = SeededNoise(drawn.seeds)(torch.empty(4, 2)) * model.sde.prior_std()
    decoded = decode(model, latent, denoise=True)
    torch.testing.assert_close(decoded.x, drawn.x, rtol=0, atol=1e-5)
    assert torch.equal(decoded.nfe, drawn.nfe)


def test_modes_are_put_back_and_errors_are_named(generator):
    model = GaussianMixture(VPSDE(), MEANS, 0.3).train()
    x = model.draw(3, generator)
    modes = []
    model.register_forward_hook(lambda module, args, output: modes.append(module.training))
    decode(model, encode(model, x).latent)
    assert modes
    assert not any(modes)
    assert model.training
    with pytest.raises(ValueError, match="positive tolerances"):
        encode(model, x, rtol=0.0)
    with pytest.raises(ArithmeticError, match="raise max_nfe = 20"):
        encode(model, x, max_nfe=20)
    with pytest.raises(ValueError, match="latent is not finite in 1 of 3 rows"):
        decode(model, torch.where(torch.arange(3)[:, None] == 1, math.nan, x))
    with pytest.raises(TypeError, match="expected a score model"):
        encode(lambda x, t: x, x)
    with pytest.raises(TypeError, match="x has type str: needs a tensor or an array of numbers"):
        encode(model, "x")


def latents(generator, *shape):
    return torch.randn(2, *shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("event", [(2,), (5,), (3, 4, 4)])
def test_slerp_is_shoemake(generator, event):
    """Equal lengths: the formula with the sines written out, its length kept, its angle proportional to the weight."""
    a, b = latents(generator, 6, *event)
    b = b * (a.flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).view(-1, *[1] * len(event))
    w = torch.linspace(0, 1, 7, dtype=torch.float64)
    path = slerp(a, b, w)
    assert path.shape == (6, 7, *event)
    u, v, found = a.flatten(1), b.flatten(1), path.flatten(2)
    cosine = (u * v).sum(1) / u.square().sum(1)
    theta = cosine.acos()[:, None, None]
    written = ((1 - w[:, None]) * theta).sin() * u[:, None] + (w[:, None] * theta).sin() * v[:, None]
    torch.testing.assert_close(found, written / theta.sin())
    torch.testing.assert_close(found.norm(dim=2), u.norm(dim=1, keepdim=True).expand(6, 7))
    assert torch.equal(path[:, 0], a)
    assert torch.equal(path[:, -1], b)
    torch.testing.assert_close(slerp(b, a, 1 - w), path)


def test_slerp_at_the_edges(generator):
    a, w = torch.randn(1, 8, generator=generator), torch.tensor([0.0, 0.25, 0.5, 1.0])
    size = a.norm()
    nothing = torch.zeros_like(a)
    torch.testing.assert_close(slerp(a, a, w), a[:, None].expand(1, 4, 8))
    torch.testing.assert_close(slerp(a, 3 * a, w)[0], (1 + 2 * w)[:, None] * a)
    torch.testing.assert_close(slerp(nothing, a, w)[0], w[:, None] * a)
    torch.testing.assert_close(slerp(a, nothing, w)[0], (1 - w)[:, None] * a)
    assert torch.equal(slerp(nothing, nothing, w), torch.zeros(1, 4, 8))
    for opposite in (-a, -a * (1 + 1e-7), -a + 1e-6 * torch.randn(a.shape, generator=generator)):
        path = slerp(a, opposite, w)[0]
        torch.testing.assert_close(path.norm(dim=1), size.expand(4), rtol=1e-5, atol=0)
        torch.testing.assert_close((path[2] @ a[0]) / size**2, torch.tensor(0.0), rtol=0, atol=1e-5)
        assert torch.equal(path[-1], opposite[0])
    axis = torch.tensor([[3.0, 0.0, 0.0]])
    torch.testing.assert_close(slerp(axis, -axis, w)[0].norm(dim=1), torch.full((4,), 3.0))
    line = slerp(torch.tensor([[1.0]]), torch.tensor([[-1.0]]), w)[0, :, 0]
    assert line[0] == 1
    assert line[2].abs() < 1e-6
    assert line[-1] == -1


@pytest.mark.parametrize("sign", [1, -1])
def test_slerp_keeps_its_digits_at_tiny_angles(generator, sign):
    """a and +-(a + 1e-9 across): the arc moves by halves of the angle, and keeps the length."""
    a, across = latents(generator, 8).unbind()
    across = across - (across @ a) / (a @ a) * a
    across = across * a.norm() / across.norm()
    quarter, middle = slerp(a[None], sign * (a + 1e-9 * across)[None], [0.25, 0.5])[0]
    assert abs(quarter.norm() / a.norm() - 1).item() < 1e-13
    if sign == 1:
        torch.testing.assert_close((middle - a) * 1e9, 0.5 * across, rtol=1e-5, atol=1e-6)
    else:
        torch.testing.assert_close(middle, -across, rtol=0, atol=1e-6)


def test_slerp_is_of_each_pair_and_continuous(generator):
    a, b = latents(generator, 5, 6)
    a[1], b[1] = 0, 0
    w = torch.linspace(0, 1, 501, dtype=torch.float64)
    path = slerp(a, b, w)
    for i in range(5):
        torch.testing.assert_close(slerp(a[i : i + 1], b[i : i + 1], w)[0], path[i], rtol=0, atol=1e-14)
    lengths = (1 - w) * a.norm(dim=1, keepdim=True) + w * b.norm(dim=1, keepdim=True)
    torch.testing.assert_close(path.norm(dim=2), lengths)
    assert path.diff(dim=1).norm(dim=2).max() < 2 * math.pi * lengths.max() / 500
    assert slerp(a.float(), b.float(), w).dtype == torch.float32
    with pytest.raises(ValueError, match="numbers from 0 to 1"):
        slerp(a, b, [0.5, 1.5])
    with pytest.raises(ValueError, match="needs one"):
        slerp(a, b[:, :3], [0.5])


def test_halfway_of_normal_latents_is_normal(generator):
    """Why spherical: the straight mixture has the length of sqrt(1/2) of its ends."""
    a, b = torch.randn(2, 400, 64, generator=generator)
    middle = slerp(a, b, [0.5])[:, 0]
    assert abs(middle.std().item() - 1) < 0.02
    assert (0.5 * (a + b)).std().item() < 0.75
