"""A learned transform: in latents of an orthogonal map all is as outside of them, to rounding."""

import math

import pytest
import torch

from samplers import SAMPLERS, generate, sample
from samplers.grid import make_grid
from samplers.protocol import LatentVariables, missing
from samplers.protocol import Transform as TransformProtocol
from sde import VESDE, VPSDE, Denoiser, Transform
from sde.autoencoder import AUTOENCODERS, LatentTransform, LinearAutoencoder, in_latents, standardized
from sde.checkpoint.models import load_model, load_transform, save_model
from sde.checkpoint.spec import build_denoiser
from sde.checkpoint.transforms import build_transform, describe_transform
from sde.data import Dataset
from sde.data.codes import PosteriorCodes
from sde.guidance.threshold import StaticThreshold
from sde.inverse.operators import CompressedSensing, Mask
from sde.inverse.posterior import DPS, MMPS, PiGDM, Replacement
from tests.oracles.exact import GaussianMixture
from tests.oracles.linear_gaussian import FullGaussian

DIM = 6


def orthogonal(dim=DIM, seed=0):
    matrix = torch.randn(dim, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.linalg.qr(matrix)[0]


def pair(scale=0.4):
    """The transform into latents z = (Q y - shift) / scale of y = (x - m) / s, and the elementwise one into Q^T z."""
    q = orthogonal()
    made = LatentTransform(LinearAutoencoder.of(q, (DIM,)), Transform((0.3,), (2.0,))).double()
    shift = torch.linspace(-1, 1, DIM, dtype=torch.float64)
    made.shift.copy_(shift)
    made.scale.fill_(scale)
    # x = 0.3 + 2 y and y = Q^T (shift + scale z).
    outside = Transform(tuple((0.3 + 2 * shift @ q).tolist()), (2 * scale,) * DIM)
    return made, outside, q


def mixtures(sde):
    """The same mixture in latents and outside of them; neither knows of the other's formula."""
    latent, outside, q = pair()
    means = torch.randn(3, DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return GaussianMixture(sde, means @ q.T, 0.3, transform=latent), GaussianMixture(sde, means, 0.3, None, outside), q


def gaussians(sde):
    """The same correlated Gaussian, twice: outside by its covariance in data units, inside by that of the latents."""
    latent, outside, q = pair()
    root = torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    mean, covariance = torch.linspace(0, 1, DIM, dtype=torch.float64), root @ root.T / DIM + 0.1 * torch.eye(DIM)
    # z = (Q (x - m) / s - shift) / scale.
    linear = q / (2.0 * 0.4)
    inside = FullGaussian(sde, linear @ (mean - 0.3) - latent.shift / 0.4, linear @ covariance @ linear.T)
    inside.transform = latent
    return inside, FullGaussian(sde, mean, covariance, outside), q


@pytest.mark.parametrize("sde", [VPSDE(), VESDE()], ids=["vp", "ve"])
def test_denoised_and_samples_are_those_outside(sde, generator):
    latent, outside, q = mixtures(sde)
    x = torch.randn(5, DIM, generator=generator, dtype=torch.float64)
    t = torch.linspace(sde.t_min, sde.t_max, 5, dtype=torch.float64)
    torch.testing.assert_close(latent(x @ q.T, t), outside(x, t) @ q.T, rtol=0, atol=1e-9)
    start = sde.prior_std() * torch.randn(4, DIM, generator=generator, dtype=torch.float64)
    numbers = torch.randn(40, 4, DIM, generator=generator, dtype=torch.float64)

    def ends(model, sampler, turn):
        draws = iter(numbers)
        steps = make_grid(sde, "log_snr", 20)
        return model.transform.decode(sample(model, sampler, start @ turn, steps, lambda x: next(draws) @ turn))

    for sampler in (SAMPLERS["heun"](), SAMPLERS["ancestral"]()):
        found, expected = ends(latent, sampler, q.T), ends(outside, sampler, torch.eye(DIM).double())
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", [DPS, PiGDM, MMPS])
@pytest.mark.parametrize("kind", ["mask", "projection"])
def test_posterior_means_are_those_outside(method, kind, generator):
    sde = VPSDE()
    latent, outside, q = gaussians(sde)
    operator = Mask(torch.arange(DIM) % 2 == 0, (DIM,)) if kind == "mask" else CompressedSensing((DIM,), 3)
    y = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    x = torch.randn(4, DIM, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.02, 0.2, 0.5, 0.9], dtype=torch.float64)
    found, expected = (method(model, operator, y, 0.1) for model in (latent, outside))
    there = found(x @ q.T, t)
    torch.testing.assert_close(there, expected(x, t) @ q.T, rtol=1e-5, atol=1e-5)
    # The measurement moves it.
    assert (there - latent(x @ q.T, t)).norm(dim=1).min() > 1e-3


def test_generated_samples_come_in_data_units_whatever_the_chunks():
    latent, _, _ = mixtures(VPSDE())
    found = generate(latent, SAMPLERS["heun"](), 5, (DIM,), steps=6, batch_size=2)
    assert found.state.shape == (5, DIM)
    torch.testing.assert_close(found.x, latent.transform.decode(found.state), rtol=0, atol=1e-9)
    assert torch.equal(found.x[:3], generate(latent, SAMPLERS["heun"](), 3, (DIM,), steps=6, batch_size=2).x)


@pytest.mark.parametrize("levels", [None, 16])
@pytest.mark.parametrize(
    ("event", "inside"), [((1, 4, 4), (4, 2, 2)), ((2, 12), (3, 4)), ((5,), (3,)), ((1, 2, 2, 2), (2, 4))]
)
def test_latents_are_standardized(event, inside, levels, generator):
    entries = math.prod(event)
    x = torch.randn(400, *event, generator=generator) * torch.linspace(0.5, 2, entries).view(event) + 1
    x = x.mul(2).add(6).round().clamp(0, 15) if levels else x
    transform = Transform.of_levels(16) if levels else Transform.standardize(x)
    data = Dataset(x, None, None, transform)
    coder = LinearAutoencoder.of(torch.linalg.qr(torch.randn(entries, math.prod(inside), generator=generator))[0].T,
                                 event, inside, std=1.0)  # fmt: skip
    for scale in ("channel", "common"):
        latents = standardized(coder, data, scale)
        coded = in_latents(data, latents)
        mean, var = coded.moments
        assert mean.shape == inside == coded.inner_shape
        z_mean, z_std = latents.posterior(transform.dequantize(x, 0.5))
        torch.testing.assert_close(var.float(), z_mean.var(0, correction=0) + z_std.square().mean(0))
        by_channel = mean.reshape(inside[0], -1).mean(1)
        torch.testing.assert_close(by_channel, torch.zeros_like(by_channel), rtol=0, atol=1e-5)
        spread = (mean.square() + var).reshape(inside[0], -1).mean(1)
        spread = spread.mean() if scale == "common" else spread
        torch.testing.assert_close(spread, torch.ones_like(spread), rtol=1e-5, atol=1e-5)
        assert len(latents.scale.unique()) == (1 if scale == "common" else inside[0])
        assert coded.sigma_data == pytest.approx(1, abs=1e-5)
    # What no draw of the posterior reconstructs, in data units: by hand.
    missed = transform.dequantize(x, 0.5) - latents.decode(z_mean)
    scales = torch.tensor(transform.scale).view(-1, *[1] * (len(event) - 1))
    from_draws = (coder.decoder.detach().square().sum(1).view(event)) * scales**2
    expected = (missed.square().mean(0) + from_draws).reshape(event[0], -1).mean(1).sqrt()
    torch.testing.assert_close(latents.noise_std.float(), expected, rtol=0.08, atol=1e-4)
    assert not missing(latents, LatentVariables)
    assert not missing(latents, TransformProtocol)


def test_a_model_file_alone_rebuilds_the_transform(tmp_path):
    latents = LatentTransform(LinearAutoencoder((1, 4, 4), (4, 2, 2)), Transform.of_levels(16))
    latents.shift.uniform_()
    described = describe_transform(latents)
    assert build_transform(described).digest != latents.digest
    spec = {
        "network": {"name": "mlp", "width": 8, "layers": 1}, "event_shape": [1, 4, 4], "num_classes": None,
        "sde": {"name": "vp"}, "parametrization": "edm", "sigma_data": 1.0, "transform": described,
        "null_trained": True,
    }  # fmt: skip
    model = build_denoiser(spec)
    model.transform.load_state_dict(latents.state_dict())
    save_model(tmp_path / "model.safetensors", "denoiser", spec, model.state_dict())
    again = load_model(tmp_path / "model.safetensors")
    assert again.transform.digest == latents.digest == load_transform(tmp_path / "model.safetensors").digest
    assert isinstance(again, Denoiser)
    assert again(torch.zeros(2, 4, 2, 2), torch.tensor(0.5)).shape == (2, 4, 2, 2)
    assert generate(again, SAMPLERS["ddim"](), 2, (1, 4, 4), steps=2).x.shape == (2, 1, 4, 4)
    assert "linear" in AUTOENCODERS


def test_entry_by_entry_is_refused():
    latent, _, _ = mixtures(VPSDE())
    with pytest.raises(ValueError, match="replacement acts on the entries"):
        Replacement(latent, Mask(torch.arange(DIM) < 3, (DIM,)), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="a threshold acts on the entries"):
        StaticThreshold(latent, 0.0, 1.0)


def test_shapes_that_do_not_fit_are_named(generator):
    coder = LinearAutoencoder((4,), (2,))
    with pytest.raises(ValueError, match=r"one of items of shape \(4,\), and these have \(5,\)"):
        standardized(coder, Dataset(torch.randn(9, 5, generator=generator), None, None, Transform()))
    data = Dataset(torch.randn(9, 4, generator=generator), None, None, Transform())
    with pytest.raises(ValueError, match="scale = 'each': needs one of channel, common"):
        standardized(coder, data, "each")
    with pytest.raises(ValueError, match="more than the 4 of an item"):
        LinearAutoencoder((4,), (5,))
    with pytest.raises(ValueError, match="channel 0 of the latents is constant"):
        standardized(LinearAutoencoder.of(torch.tensor([[0.0, 0, 0, 0], [1, 0, 0, 0]]), (4,)), data)
    with pytest.raises(ValueError, match=r"the codes have shape \(9, 2\): needs \(9, 4\)"):
        Dataset(data.items, None, None, LatentTransform(coder), codes=torch.zeros(9, 2))


def test_padded_items_are_refused():
    items, sizes = torch.zeros(3, 1, 8), torch.tensor([8, 4, 2])
    with pytest.raises(ValueError, match="an autoencoder would encode the padding"):
        Dataset(items, None, None, LatentTransform(LinearAutoencoder((1, 8), (2, 2))), sizes=sizes)


def test_codes_are_the_posteriors(generator):
    coder = LinearAutoencoder.of(torch.randn(2, 4, generator=generator), (4,), std=torch.tensor([0.1, 0.3]))
    data = Dataset(torch.randn(9, 4, generator=generator), None, None, Transform())
    latents = standardized(coder, data)
    codes = PosteriorCodes(data.items, latents)
    assert codes.shape == (9, 4)
    mean, std = latents.posterior(data.items)
    torch.testing.assert_close(codes[torch.arange(9)], torch.cat([mean, std], 1))
    torch.testing.assert_close(std[0], torch.tensor([0.1, 0.3]) / latents.scale)
