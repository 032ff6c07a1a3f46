"""Autoencoders: shapes of any dimension and size, posteriors, and rows that do not see each other."""

import math

import pytest
import torch

from sde.autoencoder import AUTOENCODERS, KLAutoencoder, TinyAutoencoder
from sde.checkpoint.models import load_model, save_model
from sde.checkpoint.spec import build

SMALL = {"channels": 8, "latent_channels": 3}
CASES = {
    "signal": ((2, 17), {**SMALL, "channel_mult": (1, 2, 2)}, (3, 5)),
    "image": ((1, 8, 8), SMALL, (3, 4, 4)),
    "odd image": ((3, 19, 26), {**SMALL, "channel_mult": (1, 1), "patch_size": 3}, (3, 4, 5)),
    "narrow image": ((2, 1, 7), SMALL, (3, 1, 4)),
    "volume": ((1, 5, 6, 3), {**SMALL, "num_res_blocks": 2}, (3, 3, 3, 2)),
    "attention": ((1, 9, 9), {**SMALL, "attention_resolutions": (5,), "dropout": 0.1}, (3, 5, 5)),
    "one level": ((1, 6, 6), {**SMALL, "channel_mult": (1,), "patch_size": 2}, (3, 3, 3)),
    "recomputed": ((1, 8, 8), {**SMALL, "activation_checkpointing": True}, (3, 4, 4)),
}


def random(model, seed=0):
    """With weights of such a size that nothing is at its initial zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.normal_(std=(parameter[0].numel() + 1) ** -0.5, generator=generator)
    return model.eval()


def items(shape, count=3):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("case", CASES)
def test_any_shape_goes_through_and_comes_back(case):
    shape, options, latent = CASES[case]
    model, y = random(KLAutoencoder(shape, **options)), items(shape)
    mean, std = model.encode(y)
    assert model.latent_shape == latent
    assert mean.shape == std.shape == (3, *latent)
    assert (std > 0).all()
    assert std.isfinite().all()
    assert model.decode(mean).shape == y.shape
    decoded, *posterior = model(y, torch.ones_like(mean))
    torch.testing.assert_close(decoded, model.decode(mean + std))
    torch.testing.assert_close(posterior, [mean, std])
    # Each row is its own.
    torch.testing.assert_close(model.encode(y[1:2])[0], mean[1:2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.decode(mean[1:2]), model.decode(mean)[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["odd image", "attention"])
def test_every_entry_is_seen_and_made(case):
    """Padding and cropping lose nothing: each entry of an item moves its latent, and each entry of an item moves with
    some entry of the latent."""
    shape, options, _ = CASES[case]
    model, y = random(KLAutoencoder(shape, **options)).double(), items(shape, 1).double().requires_grad_()
    mean, _ = model.encode(y)
    (moved,) = torch.autograd.grad(mean.square().sum(), y)
    assert (moved != 0).all()
    assert (model.decode(mean) != model.decode(mean + 1)).all()


def test_std_is_positive_and_finite_however_far_the_network_goes():
    model = random(KLAutoencoder((1, 8, 8), **SMALL))
    for size in (-1e4, 1e4):
        model.encoder[-1].bias.data.fill_(size)
        _, std = model.encode(items((1, 8, 8)))
        assert ((std > 0) & std.isfinite()).all()


def test_activation_checkpointing_changes_no_gradient():
    found = []
    for recompute in (False, True):
        model = random(KLAutoencoder((1, 8, 8), **SMALL, activation_checkpointing=recompute)).train()
        model(items((1, 8, 8)), torch.zeros(3, 3, 4, 4))[0].square().mean().backward()
        found.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(("kind", "options"), [("kl", SMALL), ("tiny", {"width": 8, "midblock_norm": True})])
def test_file_rebuilds_bit_for_bit(tmp_path, kind, options):
    spec = {"network": {"name": kind, **options}, "event_shape": [3, 9, 14]}
    model = random(build("autoencoder", spec))
    model.noise_std.fill_(0.3)
    save_model(tmp_path / "a.safetensors", "autoencoder", spec, model.state_dict())
    again = load_model(tmp_path / "a.safetensors", "autoencoder")
    assert type(again) is AUTOENCODERS[kind]
    assert torch.equal(again.noise_std, model.noise_std)
    y = items((3, 9, 14))
    assert torch.equal(again.decode(again.encode(y)[0]), model.decode(model.encode(y)[0]))
    with pytest.raises(ValueError, match="holds a autoencoder in format 1: needs a denoiser"):
        load_model(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("kind", "shape", "options", "sentence"),
    [
        (KLAutoencoder, (5,), {}, "a KL autoencoder takes items of shape"),
        (KLAutoencoder, (1, 8, 8), {"latent_channels": 0}, "latent_channels = 0: needs whole numbers from 1"),
        (KLAutoencoder, (1, 8, 8), {"patch_size": 0}, "patch_size = 0: needs whole numbers from 1"),
        (KLAutoencoder, (1, 8, 8), {"attention_resolutions": (3,)}, "attention at resolution 3: the resolutions are"),
        (TinyAutoencoder, (1, 8), {}, r"a tiny autoencoder takes images \(channels, height, width\), not \(1, 8\)"),
        (TinyAutoencoder, (3, 8, 8), {"encoder_blocks": (1, 1)}, "need as many levels"),
    ],
)
def test_what_cannot_be_is_refused(kind, shape, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        kind(shape, **options)


def test_wrong_shapes_are_named():
    model = KLAutoencoder((1, 8, 8), **SMALL)
    with pytest.raises(ValueError, match=r"items of shape \(1, 8, 8\), and these have \(8, 8, 1\)"):
        model.encode(torch.zeros(2, 8, 8, 1))
    with pytest.raises(ValueError, match=r"x has shape \(2, 4, 4\)"):
        model.decode(torch.zeros(2, 4, 4))


def test_items_of_another_size_than_its_own_are_refused():
    """What is decoded would have the size of its own."""
    model = KLAutoencoder((1, 8, 8), **SMALL)
    with pytest.raises(ValueError, match=r"items of shape \(1, 8, 8\), and these have \(1, 8, 10\)"):
        model.encode(torch.zeros(2, 1, 8, 10))
    assert math.prod(model.latent_shape) == 48
