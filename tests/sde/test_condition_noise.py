"""Noise on conditions: what is added to what there is already, null rows, and the law of its draws."""

import scipy.stats
import torch

from sde.condition.noise import noised_kind, with_noise
from sde.data.condition_noise import with_condition_noise
from tests.sde.small_conditions import arrays
from tests.sde.small_data import config, load_dataset, refused


def test_noise_is_added_to_what_there_is():
    """Variances add: from 0.3 to 0.5 it takes 0.4."""
    c, n = torch.randn(2, 4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scale, level = torch.tensor([2.0, 5.0]), torch.tensor([0.3, 0.1, 0.0, 1.0], dtype=torch.float64)
    first = with_noise({"image": c[:, :, None]}, "image", level, scale, n[:, :, None])
    expected = c + level[:, None, None] * scale[:, None] * n
    torch.testing.assert_close(first["image"][:, :, 0], expected)
    assert torch.equal(first["condition_noise"], level.float()[:, None])
    told = {"vector": c[:, 0], "condition_noise": torch.tensor([[0.3], [0.0], [0.5], [torch.nan]])}
    told["vector"][3, 1] = torch.nan
    more = with_noise(told, "vector", torch.full((4,), 0.5), [1.0, 2.0, 3.0], n[:, 0])
    added = torch.tensor([0.4, 0.5, 0.0], dtype=torch.float64)[:, None] * torch.tensor([1.0, 2.0, 3.0]) * n[:3, 0]
    torch.testing.assert_close(more["vector"][:3], c[:3, 0] + added, rtol=1e-6, atol=1e-6)
    assert more["condition_noise"][:3, 0].tolist() == [0.5] * 3
    assert more["condition_noise"][3].isnan().all()
    refused("the condition 'vector' has noise of level 0.5 already: ask for that at least", with_noise, told, "vector",
            torch.full((4,), 0.4), [1.0, 2.0, 3.0], n[:, 0])  # fmt: skip


def test_the_kind_that_is_noised():
    assert noised_kind(("labels", "vector", "image")) == "image"
    assert noised_kind(("sequence", "vector")) == "vector"
    assert noised_kind(("labels", "sequence")) is None


def test_draws_of_training_have_their_law(tmp_path):
    """Levels uniform, noise normal, in units of each feature's own spread."""
    path, _ = arrays(tmp_path)
    parts = load_dataset(**config("points", root=path, conditions=("vector",)))
    train, _ = with_condition_noise(parts, (0.2, 0.6))
    index = torch.zeros(800, dtype=torch.long)
    _, clean = parts[0].batch(index)
    _, noised = train.batch(index, torch.randint(2**62, (800,), generator=torch.Generator().manual_seed(0)))
    level = noised["condition_noise"].double()
    _, std = parts[0].condition_moments["vector"]
    n = (noised["vector"].double() - clean["vector"].double()) / (level * std)
    assert scipy.stats.kstest(((level[:, 0] - 0.2) / 0.4).numpy(), "uniform").pvalue > 1e-4
    for feature in n.T:
        assert scipy.stats.kstest(feature.numpy(), "norm").pvalue > 1e-4
    assert (torch.corrcoef(torch.cat([n, level], 1).T).triu(1).abs() < 5 / 800**0.5).all()
