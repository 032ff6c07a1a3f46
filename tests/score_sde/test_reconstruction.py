"""The measurement of reconstructions: pooled PSNR, rate and statistics of latents, in closed form."""

import math

import pytest
import torch

from score_sde.evaluation.reconstruction import measured, peak_of, reconstruct
from sde.autoencoder import Autoencoder
from sde.data import Dataset
from sde.data.transform import Transform


class Known(Autoencoder):
    """mean = (y_1, 2 y_2), std = (0.5, 0.1); what is decoded is off by ``error`` in every entry."""

    def __init__(self, error=0.0, deterministic=False):
        super().__init__((1, 2), (2, 1))
        self.error, self.without_spread = error, deterministic

    @property
    def deterministic(self):
        return self.without_spread

    def encode(self, y):
        std = torch.tensor([0.5, 0.1])[:, None].expand(len(y), 2, 1)
        return (y * torch.tensor([1.0, 2.0])).transpose(1, 2), 0 * std if self.deterministic else std

    def decode(self, z):
        return z.transpose(1, 2) / torch.tensor([1.0, 2.0]) + self.error


X = torch.tensor([[[0.0, 1.0]], [[2.0, 3.0]], [[4.0, 8.0]]])
CPU = torch.device("cpu")


def test_statistics_and_rate():
    data = Dataset(X, None, None, Transform())
    found = measured(Known(0.25), data, CPU, batch_size=2)
    assert found.error == pytest.approx(0.25**2)
    assert found.psnr(peak_of(data)) == pytest.approx(10 * math.log10(8**2 / 0.25**2))
    assert found.mean.tolist() == pytest.approx([2.0, 8.0])
    assert found.std.tolist() == pytest.approx([X[:, 0, 0].std(correction=0), 2 * X[:, 0, 1].std(correction=0)])
    assert found.posterior_std.tolist() == pytest.approx([0.5, 0.1])
    squares = X[:, 0, 0] ** 2 + (2 * X[:, 0, 1]) ** 2
    nats = (squares + 0.5**2 + 0.1**2 - 2) / 2 - math.log(0.5) - math.log(0.1)
    values = found.to_dict(8.0)
    assert values["bits_per_item"] == pytest.approx((nats.mean() / math.log(2)).item())
    assert values["bits_per_dim"] == pytest.approx(values["bits_per_item"] / 2)
    assert values["latent"][1] == pytest.approx({"mean": 8.0, "std": found.std[1].item(), "posterior_std": 0.1})


def test_noise_std_is_that_of_draws():
    """The error of draws has the variances (0.5)^2 and (0.1 / 2)^2 beside the square of the offset."""
    data = Dataset(torch.zeros(2000, 1, 2), None, None, Transform())
    expected = 0.25**2 + (0.5**2 + 0.05**2) / 2
    assert (measured(Known(0.25), data, CPU).noise_std ** 2).tolist() == pytest.approx([expected], rel=0.05)


def test_error_is_pooled():
    """Not the mean of the items' own decibels: one that is far off counts by its square."""

    class Scaled(Known):
        def decode(self, z):
            return 1.5 * super().decode(z)

    data = Dataset(X, None, None, Transform())
    found = measured(Scaled(), data, CPU)
    assert found.error == pytest.approx((0.25 * X.square()).mean().item())


def test_quantized_data_are_compared_as_they_are_written():
    """Half a level off is floored away, and black and white are not left."""
    data = Dataset(X.to(torch.uint8), None, None, Transform.of_levels(9))
    unit = 1 / 4.5
    assert measured(Known(0.4 * unit), data, CPU).error == 0
    assert measured(Known(0.4 * unit), data, CPU).psnr(8) == math.inf
    x, shown = reconstruct(Known(1.2 * unit), data, torch.arange(3), CPU)
    assert torch.equal(x, X)
    assert torch.equal(shown, (X + 1).clamp(max=8))
    assert peak_of(data) == 8


def test_padded_items_count_by_what_is_real():
    data = Dataset(X.clone(), None, None, Transform(), sizes=torch.tensor([1, 2, 1]))
    found = measured(Known(0.5), data, CPU)
    assert found.error == pytest.approx(0.25)
    _, shown = reconstruct(Known(0.5), data, torch.arange(3), CPU)
    assert shown[0, 0, 1] == shown[2, 0, 1] == 0


def test_an_encoder_without_spread_has_no_rate():
    found = measured(Known(deterministic=True), Dataset(X, None, None, Transform()), CPU).to_dict(8.0)
    assert found["bits_per_item"] is None
    assert found["bits_per_dim"] is None
    assert found["latent"][0]["posterior_std"] == 0
