"""Data far from zero: centered in float64, so that the model sees the digits that float32 would lose."""

import numpy as np
import pytest
import torch

from samplers import Heun, generate, log_likelihood
from sde import VPSDE, Denoiser
from sde.condition.standardization import Standardization
from sde.data import arrays
from sde.data.arrays import condition_array, open_array, read_array
from sde.data.dataset import Dataset
from sde.data.sizes import trimmed
from sde.data.statistics import feature_moments, measure
from sde.data.transform import Transform
from sde.networks import MLP
from sde.rounding import FAR, far_from_zero
from tests.sde.small_data import config, load_dataset

FAR_AWAY = [(3.0, 4.5e6), (0.3, 4.5e6), (0.01, 1e5), (1e-3, -7e8)]


@pytest.mark.parametrize(("std", "mean"), FAR_AWAY)
@pytest.mark.parametrize("form", ["npy", "npz", "csv", "on disk"])
def test_items_far_from_zero(tmp_path, monkeypatch, std, mean, form):
    z = np.random.default_rng(0).normal(size=(400, 2))
    x = z * std + mean
    path = tmp_path / f"x.{form if form in ('npz', 'csv') else 'npy'}"
    if form == "csv":
        np.savetxt(path, x, fmt="%.17g", delimiter=",")
    else:
        (np.savez if form == "npz" else np.save)(path, x)
    monkeypatch.setattr(arrays, "IN_MEMORY", 0 if form == "on disk" else 2**31)
    train, _ = load_dataset(**config("points", root=path))
    x0, _ = train.batch(torch.arange(len(train)))
    encoded = train.transform.encode(x0)
    assert (x0.dtype, encoded.dtype) == (torch.float64, torch.float32)
    exact = torch.from_numpy(x)
    rows = torch.tensor([(exact == row).all(1).nonzero()[0, 0] for row in x0])
    exact = exact[rows]
    standardized = (exact - exact.mean(0)) / exact.std(0, correction=0)
    torch.testing.assert_close(encoded.double(), standardized, rtol=0, atol=1e-5 + 4e-16 * abs(mean) / std)
    assert torch.equal(train.transform.decode(encoded).float(), x0.float())
    torch.testing.assert_close(train.transform.decode(encoded), x0, rtol=0, atol=1e-6 * std + 4e-16 * abs(mean))
    assert torch.equal(read_array(path)[0], torch.from_numpy(x))


@pytest.mark.parametrize("folder", [False, True])
def test_unequal_items_far_from_zero(tmp_path, folder):
    """The transform is that of the real entries of the training part, without the padding, and all digits stay."""
    random = np.random.default_rng(0)
    sizes = random.integers(2, 7, 60)
    real = np.arange(6) < sizes[:, None, None]
    x = np.where(real, random.normal(size=(60, 1, 6)) + 4.5e6, 1e9)
    if folder:
        for i, (item, size) in enumerate(zip(x, sizes, strict=True)):
            np.save(tmp_path / f"{i:02d}.npy", item[:, :size])
    else:
        np.savez(tmp_path / "x.npz", x=x, sizes=sizes)
    root = tmp_path if folder else tmp_path / "x.npz"
    train, test = load_dataset(**config("points", root=root))
    found, _, own = read_array(root)
    assert (found.dtype, train.items.dtype, own.tolist()) == (torch.float64, torch.float64, sizes.tolist())
    assert torch.equal(found, torch.from_numpy(np.where(real, x, 0)))
    learned = torch.cat(trimmed(train.batch(torch.arange(54))[0], train.sizes), dim=1)[0]
    assert train.transform.shift[0] == pytest.approx(learned.mean().item(), rel=0, abs=1e-6)
    assert train.transform.scale[0] == pytest.approx(learned.std(correction=0).item(), rel=1e-6)
    assert (test.transform, len(learned)) == (train.transform, int(train.sizes.sum()))


def test_a_folder_of_several_types(tmp_path):
    """Whichever type comes first, the fractions of all stay."""
    np.save(tmp_path / "0.npy", np.array([[1, 2]], np.uint8))
    np.save(tmp_path / "1.npy", np.array([[0.5, 1.5, 2.5]], ">f4"))
    items, _, sizes = read_array(tmp_path)
    assert (items.tolist(), sizes.tolist()) == ([[[1.0, 2.0, 0.0]], [[0.5, 1.5, 2.5]]], [2, 3])


def test_constant_only_when_constant():
    x = torch.stack([torch.linspace(0, 1e-6, 50, dtype=torch.float64) + 1e6, torch.full((50,), 0.1).double()], 1)
    assert Transform.standardize(x[:, :1]).shift[0] == pytest.approx(1e6)
    with pytest.raises(ValueError, match=r"^channel 1 of the data is constant, at 0\.1: "):
        Transform.standardize(x)


def test_ordinary_data_stay_in_float32(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(50, 2)) + 1000)
    train, _ = load_dataset(**config("points", root=tmp_path / "x.npy"))
    assert (train.items.dtype, train.batch(torch.arange(3))[0].dtype) == (torch.float32, torch.float32)
    transform = Transform((5.0,), (2.0,))
    assert transform.encode(torch.ones(2, 2, dtype=torch.float64)).dtype == torch.float64


def test_what_was_stored_too_coarsely_is_said(tmp_path):
    np.save(tmp_path / "x.npy", (np.random.default_rng(0).normal(size=(50, 2)) + 4.5e6).astype(np.float32))
    with pytest.warns(UserWarning, match=r"channel 0 is stored as float32, whose steps at 4\.5e\+06 are about 0\.5"):
        open_array(tmp_path / "x.npy")


def test_a_model_of_data_far_from_zero():
    """Samples and densities are those of the same data about zero."""
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)).double()
    near, far = Transform((0.0, 0.0), (0.5, 2.0)), Transform((4.5e6, -3e7), (0.5, 2.0))
    network = MLP((2,), width=16, layers=1)
    models = [Denoiser(network, VPSDE(), transform=transform, event_shape=(2,)).eval() for transform in (near, far)]
    drawn = [generate(model, Heun(), 3, (2,), steps=3).x for model in models]
    shift = torch.tensor(far.shift, dtype=torch.float64)
    assert [samples.dtype for samples in drawn] == [torch.float32, torch.float64]
    torch.testing.assert_close(drawn[1] - shift, drawn[0].double(), rtol=0, atol=1e-6)
    own, other = log_likelihood(models[0], x.float()), log_likelihood(models[1], x + shift)
    torch.testing.assert_close(own.nats, other.nats, rtol=1e-4, atol=1e-4)
    start = generate(models[1], Heun(), 6, (2,), steps=3, start=x + shift, start_time=0.01).x
    assert (start - shift - x).abs().max() < 1.0


@pytest.mark.parametrize("kind", ["vector", "image", "sequence"])
def test_conditions_far_from_zero(kind):
    shape = {"vector": (300, 1), "image": (300, 1, 4), "sequence": (300, 4, 1)}[kind]
    c = condition_array(kind, 1.7e9 + np.random.default_rng(0).random(shape) * 3600)
    assert len(c.unique()) == c.numel()
    data = Dataset(torch.randn(300, 2), None, None, Transform(), {kind: c})
    (mean, std) = data.condition_moments[kind]
    encoded = Standardization({kind: (mean.tolist(), std.tolist())})({kind: c})[kind]
    assert encoded.dtype == torch.float32
    torch.testing.assert_close(encoded.double(), (c - c.mean()) / c.std(correction=0), rtol=0, atol=1e-6)
    # One row alone says nothing of its spread.
    assert condition_array(kind, c[:1].numpy()).dtype == torch.float64
    assert condition_array(kind, np.ones(shape)).dtype == torch.float32


def test_moments_of_features_in_parts():
    x = 1e8 + 1e-3 * torch.randn(5000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 0.1
    x[::7, 2] = torch.nan
    mean, std = feature_moments(x.split(999))
    given = x[~x[:, 2].isnan(), 2]
    torch.testing.assert_close(mean, torch.stack([x[:, 0].mean(), x[0, 1], given.mean()]), rtol=1e-15, atol=0)
    wanted = [x[:, 0].std(correction=0), 0.0, given.std(correction=0)]
    torch.testing.assert_close(std, torch.tensor(wanted, dtype=torch.float64), rtol=1e-5, atol=0)


def test_the_rule():
    assert far_from_zero([0.0, 1.1 * FAR], [1.0, 1.0])
    assert not far_from_zero([0.0, 0.9 * FAR], [1.0, 1.0])
    assert not far_from_zero([1e9], [0.0])


def test_the_held_out_part_sets_no_scale(tmp_path):
    """Rows that are held out may hold anything: training items are seen as they were."""
    x = np.random.default_rng(0).normal(size=(400, 2))
    np.save(tmp_path / "x.npy", x)
    before, held_out = load_dataset(**config("points", root=tmp_path / "x.npy"))
    rows = [np.flatnonzero((x.astype(np.float32) == row.numpy()).all(1))[0] for row in held_out.items]
    x[rows] *= 50
    np.save(tmp_path / "x.npy", x)
    after, moved = load_dataset(**config("points", root=tmp_path / "x.npy"))
    assert after.transform == before.transform == moved.transform == Transform.standardize(measure(before.items))
    assert torch.equal(after.items, before.items)
    assert not torch.equal(moved.items, held_out.items)


def test_every_class_is_trained_on(tmp_path):
    labels = np.arange(40) % 2
    labels[[3, 11, 20, 37]] = [2, 3, 4, 5]
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(40)
        np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).normal(size=(40, 2)), labels=labels[order])
        train, held_out = load_dataset(**config("points", root=tmp_path / "x.npz", test_fraction=0.5))
        assert train.labels.unique().tolist() == [0, 1, 2, 3, 4, 5]
        assert held_out.labels.unique().tolist() == [0, 1]
        assert len(train) + len(held_out) == 40
