"""Padded items: what is real of them alone counts, and without sizes nothing is computed otherwise."""

import json

import numpy as np
import pytest
import torch

from score_sde.modes.encode import latent_statistics
from score_sde.run.items import root_mean_square
from sde import VPSDE, Denoiser, NoisyClassifier, Transform
from sde.checkpoint.models import read_description, save_model
from sde.checkpoint.spec import build_denoiser
from sde.data import Dataset
from sde.data.sizes import cut, item_means, real, real_entries, trim, trimmed
from sde.data.statistics import measure
from sde.training.loss import BatchNoise, classifier_loss, denoising_loss
from sde.training.options import TrainingOptions
from sde.training.trainer import Trainer

SIZES = torch.tensor([3, 5, 1, 4])


class Zero(torch.nn.Module):
    """A network that sees nothing."""

    event_shape, num_classes, conditions = (2, 5), None, {}

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, c_noise, cond=None):
        return self.weight * x


def items(shape=(2, 5), seed=0):
    return torch.randn(4, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(5,), (2, 5), (1, 5, 6), (2, 5, 5, 5)], ids=str)
def test_what_is_real(shape):
    """The first entries along every axis of space, whatever the channels."""
    x = items(shape)
    kept = cut(x, SIZES, torch.nan)
    for item, own, size in zip(x, kept, SIZES.tolist(), strict=True):
        whole = trim(item, size)
        assert torch.equal(trim(own, size), whole)
        assert own.isnan().sum() == item.numel() - whole.numel()
        assert whole.shape == (shape[0] if len(shape) > 1 else size, *[size] * (len(shape) - 1))
    assert real(SIZES, shape).shape == ((4, 1, *shape[1:]) if len(shape) > 1 else (4, 5))
    means = torch.stack([trim(item, size).mean() for item, size in zip(x, SIZES.tolist(), strict=True)])
    torch.testing.assert_close(item_means(x, SIZES), means)
    assert cut(x, None) is x
    assert torch.equal(item_means(x, None), x.flatten(1).mean(1))


def test_statistics_are_those_of_real_entries():
    x = 3 * items() + 1
    found, padded = measure(x, sizes=SIZES), cut(x.double(), SIZES, torch.nan).numpy()
    np.testing.assert_allclose(found.mean, np.nanmean(padded, 0), rtol=1e-12)
    np.testing.assert_allclose(found.var, np.nanvar(padded, 0), rtol=1e-12, atol=1e-15)
    assert (found.low, found.high) == (np.nanmin(padded), np.nanmax(padded))
    mean, std = found.channels()
    np.testing.assert_allclose(mean, np.nanmean(padded, (0, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, np.nanstd(padded, (0, 2)), rtol=1e-12)
    whole = measure(x, sizes=torch.full((4,), 5))
    torch.testing.assert_close(whole.channels(), measure(x).channels())
    transform = Transform.standardize(found)
    data = Dataset(x, None, None, transform, sizes=SIZES)
    encoded = cut(transform.encode(x).double(), SIZES, torch.nan).numpy()
    assert data.sigma_data == pytest.approx(np.nanmean(encoded**2) ** 0.5, rel=1e-6)
    # Where no item is real nothing is known, and nothing counts.
    short = measure(x, sizes=SIZES.clamp(max=4))
    assert short.mean[:, 4].eq(0).all()
    assert short.high == np.nanmax(padded[..., :4])


def test_the_loss_is_the_mean_over_real_entries():
    model, x0 = Denoiser(Zero(), VPSDE()), items()
    draws = BatchNoise.draw(model.sde, x0.shape, torch.Generator().manual_seed(0))
    plain = denoising_loss(model, x0, None, draws)
    assert torch.equal(denoising_loss(model, x0, None, draws._replace(sizes=None)), plain)
    torch.testing.assert_close(denoising_loss(model, x0, None, draws._replace(sizes=torch.full((4,), 5))), plain)
    found = denoising_loss(model, x0, None, draws._replace(sizes=SIZES))
    for i, size in enumerate(SIZES.tolist()):
        part = draws._replace(z=draws.z[..., :size])
        torch.testing.assert_close(found[i], denoising_loss(model, x0[..., :size], None, part)[i])


def test_a_classifier_sees_no_noise_where_nothing_is():
    """As samples are that it guides: the loss of padded items is that of items with zeros there."""
    seen = []

    class Seeing(torch.nn.Module):
        def forward(self, x, c_noise):
            seen.append(x)
            return x.flatten(1)[:, :3]

    classifier = NoisyClassifier(Seeing(), VPSDE(), 0.5)
    draws = BatchNoise.draw(VPSDE(), (4, 2, 5), torch.Generator().manual_seed(0))
    classifier_loss(classifier, items(), torch.tensor([0, 1, 2, 0]), draws._replace(sizes=SIZES))
    assert torch.equal(seen[0], cut(seen[0], SIZES))
    assert trim(seen[0][0], 3).ne(0).all()


def test_what_items_are_padded_with_is_never_learned():
    """Steps of training on items whose padding differs are the same, and other than on items that are real."""
    weights = []
    for padding, sizes in ((0.0, SIZES), (100.0, SIZES), (100.0, None)):
        data = Dataset(cut(items(), SIZES, padding), None, None, Transform(), sizes=sizes)
        model = Denoiser(Zero(), VPSDE())
        trainer = Trainer(model, data, denoising_loss, TrainingOptions(steps=3, batch_size=2))
        for _ in range(3):
            trainer.training_step()
        weights.append(model.network.weight.item())
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.parametrize(("sizes", "words"), [
    (torch.tensor([1, 2]), "needs 4 integers"), (torch.ones(4), "needs 4 integers"),
    (torch.tensor([0, 1, 1, 1]), "sizes run from 0 to 1"), (torch.tensor([6, 1, 1, 1]), "needs integers from 1 to 5"),
])  # fmt: skip
def test_sizes_that_no_items_have(sizes, words):
    with pytest.raises(ValueError, match=words):
        Dataset(items(), None, None, Transform(), sizes=sizes)


def test_values_about_the_data_travel_in_the_model_file(tmp_path):
    spec = {
        "network": {"name": "mlp", "width": 8, "layers": 1}, "event_shape": [3], "num_classes": None,
        "sde": {"name": "vp"}, "parametrization": "edm", "sigma_data": 1.0, "null_trained": True,
        "transform": {"shift": [0.0], "scale": [1.0], "levels": None}, "about": {"columns": ["a", "b", "c"]},
    }  # fmt: skip
    save_model(tmp_path / "m.safetensors", "denoiser", spec, build_denoiser(spec).state_dict())
    assert read_description(tmp_path / "m.safetensors")["spec"] == json.loads(json.dumps(spec))


@pytest.mark.parametrize("event", [(4,), (2, 4), (1, 4, 3)])
def test_entries_that_are_real(event):
    """Those of the trimmed items, in a row; and what is measured of them is that of the trimmed items."""
    x, sizes = torch.randn(3, *event, generator=torch.Generator().manual_seed(0)), torch.tensor([2, 4, 1])
    expected = torch.cat([item.flatten() for item in trimmed(x, sizes)])
    assert torch.equal(real_entries(x, sizes), expected)
    assert torch.equal(real_entries(x, None), x.flatten())
    assert root_mean_square(x, sizes).item() == pytest.approx(expected.double().square().mean().sqrt().item())
    found = latent_statistics(x, 2.0, sizes)
    assert found["latent_mean"] == pytest.approx(expected.double().mean().item() / 2)
    assert found["latent_std"] == pytest.approx(expected.double().std(correction=0).item() / 2)
