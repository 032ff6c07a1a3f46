"""Conditions beside the data: arrays, means over blocks, and what is refused."""

import re

import numpy as np
import pytest
import torch

from tests.sde.small_conditions import arrays
from tests.sde.small_data import config, load_dataset, refused


def test_arrays_beside_x(tmp_path):
    path, held = arrays(tmp_path)
    parts = load_dataset(**config("points", root=path, conditions=("vector", "sequence", "image")))
    for part in parts:
        x, cond = part.batch(torch.arange(len(part)))
        assert cond.keys() == {"vector", "image", "sequence"}
        rows = [int(np.abs(held["x"] - row.numpy()).sum(1).argmin()) for row in x]
        for kind, c in cond.items():
            assert c.dtype == torch.float32
            np.testing.assert_allclose(c.numpy(), held[kind][rows], rtol=1e-6)
        assert part.num_classes is None
    train, _ = load_dataset(**config("points", root=path))
    assert train.conditions == {}
    alone = train.batch(torch.arange(2))[1]
    assert alone.keys() == {"labels"}, "labels alone, where nothing is named"
    assert alone["labels"].dtype == torch.int64
    train, _ = load_dataset(**config("points", root=path, conditions=("labels", "vector")))
    assert train.batch(torch.arange(2))[1].keys() == {"labels", "vector"}
    last = tmp_path / "last.npz"
    np.savez(last, x=np.zeros((9, 4, 4, 3)) + np.arange(9).reshape(9, 1, 1, 1), image=np.random.rand(9, 2, 2, 3))
    train, _ = load_dataset(**config("points", root=last, conditions=("image",), channels="last"))
    assert train.condition_shapes == {"image": (3, 2, 2)}


def test_superres_and_downsampling():
    plain, _ = load_dataset(**config("digits"))
    train, test = load_dataset(**config("digits", conditions=("labels", "superres"), superres_factor=2))
    x, cond = train.batch(torch.arange(7))
    assert torch.equal(x, plain.batch(torch.arange(7))[0])
    torch.testing.assert_close(cond["image"], x.view(7, 1, 4, 2, 4, 2).mean((3, 5)))
    assert test.condition_shapes == {"image": (1, 4, 4)}
    small, small_test = load_dataset(**config("digits", downsample=2))
    assert torch.equal(small.batch(torch.arange(7))[0], cond["image"]), "what one stage draws the next one is told"
    assert small.event_shape == (1, 4, 4)
    assert small.transform == small_test.transform
    assert small.transform.num_levels is None
    assert small.sigma_data == pytest.approx(1, rel=1e-6)
    twice, _ = load_dataset(**config("digits", downsample=2, conditions=("superres",), superres_factor=4))
    x, cond = twice.batch(torch.arange(5))
    torch.testing.assert_close(cond["image"], x.mean((2, 3), keepdim=True))


def test_means_of_items_that_stay_on_disk(tmp_path, monkeypatch):
    from sde.data import arrays as module

    x = np.random.default_rng(0).integers(0, 4, (30, 1, 4, 4)).astype(np.uint8)
    np.save(tmp_path / "x.npy", x)
    keys = {"root": tmp_path / "x.npy", "num_levels": 4, "downsample": 2, "conditions": ("superres",)}
    held, _ = load_dataset(**config("points", **keys))
    monkeypatch.setattr(module, "IN_MEMORY", 10)
    read, _ = load_dataset(**config("points", **keys))
    assert not isinstance(read.items, torch.Tensor)
    index = torch.tensor([5, 0, 20])
    (x_held, cond_held), (x_read, cond_read) = held.batch(index), read.batch(index)
    torch.testing.assert_close(x_read, x_held)
    torch.testing.assert_close(cond_read["image"], cond_held["image"])
    assert held.transform == read.transform


def test_refused_data(tmp_path):
    path, held = arrays(tmp_path)
    refused("config.data.conditions = ('words',): 'words' is not one of labels, vector, image, sequence, superres, "
            "text", load_dataset, **config("digits", conditions=("words",)))  # fmt: skip
    refused("config.data.conditions = ('vector',): the data hold labels, not vector; store an array vector beside x in "
            "an .npz, or leave it out", load_dataset, **config("digits", conditions=("vector",)))  # fmt: skip
    refused("config.data.conditions = ('image', 'superres'): image and superres are both condition images; choose one",
            load_dataset, **config("points", root=images(tmp_path), conditions=("image", "superres")))  # fmt: skip
    for key, keys in (
        ("superres_factor", {"conditions": ("superres",), "superres_factor": 3}),
        ("downsample", {"downsample": 3}),
    ):
        with pytest.raises(ValueError, match=rf"config.data.{key} = 3: an event of shape \(1, 8, 8\) has no blocks"):
            load_dataset(**config("digits", **keys))
    refused("config.data.downsample = 2: items of shape (2,) have no axes of space to take means over",
            load_dataset, **config("points", root=path, downsample=2))  # fmt: skip
    infinite = held["vector"].copy()
    infinite[4, 1] = np.inf
    for more, words in (({"vector": held["vector"][:9]}, r"'vector' has shape \(9, 3\) for 60 items"),
                        ({"vector": held["sequence"]}, r"'vector' has shape \(60, 4, 2\): needs \(n, d\)"),
                        ({"vector": held["vector"].astype(str)}, "'vector' has type <U.*: needs numbers"),
                        ({"vector": infinite},
                         r"1 rows of the condition 'vector' hold infinity \(first: 4\)")):  # fmt: skip
        path, _ = arrays(tmp_path, **more)
        with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + words):
            load_dataset(**config("points", root=path, conditions=("vector",)))


def images(tmp_path):
    path = tmp_path / "images.npz"
    np.savez(path, x=np.random.rand(12, 1, 4, 4), image=np.random.rand(12, 1, 2, 2))
    return path
