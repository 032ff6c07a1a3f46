"""Datasets: what is read, what is held out, and the sentence for each thing that cannot be read."""

import gzip
import zipfile

import numpy as np
import pytest
import torch
from ml_collections import ConfigDict
from PIL import Image

from commands.config import DEFAULTS
from sde import images as images_module
from sde.data import DATASETS, load_dataset, read_idx
from sde.toys import TOYS


def config(dataset, **keys):
    keys = {key: str(value) if key.endswith("root") else value for key, value in keys.items()}
    return ConfigDict(DEFAULTS["data"] | {"dataset": dataset} | keys)


def test_digits():
    train, test = load_dataset(config("digits"))
    assert (len(train), len(test)) == (1437, 360)
    assert train.event_shape == (1, 8, 8)
    assert train.num_classes == test.num_classes == 10
    assert (train.items.min(), train.items.max(), train.transform.levels) == (0, 16, 17)
    assert torch.bincount(test.labels).min() >= 34
    everything = {row.numpy().tobytes() for row in train.items}
    assert sum(row.numpy().tobytes() in everything for row in test.items) == 0
    x, y = test.batch(torch.tensor([3, 5]))
    assert x.dtype == torch.float32
    assert y.tolist() == test.labels[[3, 5]].tolist()


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    (gzip.open if path.suffix == ".gz" else open)(path, "wb").write(header + array.astype(np.uint8).tobytes())


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files(tmp_path, suffix):
    array = np.arange(5 * 4 * 3).reshape(5, 4, 3)
    for part in ("train", "t10k"):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{suffix}", array)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{suffix}", np.arange(5))
    train, _ = load_dataset(config("mnist", root=tmp_path))
    assert train.event_shape == (1, 4, 3)
    assert train.num_classes == 5
    assert train.items[1, 0, 2, 1] == array[1, 2, 1]
    path = tmp_path / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(ValueError, match="not a readable IDX file"):
        read_idx(path)
    path.unlink()
    with pytest.raises(ValueError, match="must hold the four MNIST files"):
        load_dataset(config("mnist", root=tmp_path))


def folder(root, count=6, size=(5, 4), mode="RGB", classes=("cat", "dog")):
    rng = np.random.default_rng(0)
    for i in range(count):
        path = root / classes[i % len(classes)] if classes else root
        path.mkdir(parents=True, exist_ok=True)
        channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)).save(path / f"{i}.png")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("in_memory", [2**31, 0])
def test_image_folders_and_zips(tmp_path, monkeypatch, packed, in_memory):
    monkeypatch.setattr(images_module, "IN_MEMORY", in_memory)
    root = tmp_path / "set"
    folder(root)
    (root / "cat" / ".hidden.png").write_bytes(b"not an image")
    (root / "notes.txt").write_text("x")
    source = root
    if packed:
        source = tmp_path / "set.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for path in root.rglob("*"):
                archive.write(path, path.relative_to(root))
    train, test = load_dataset(config("images", root=source, test_fraction=0.34))
    assert (len(train), len(test)) == (4, 2)
    assert train.event_shape == (3, 4, 5)
    assert train.num_classes == 2
    x, y = train.batch(torch.arange(4))
    files = {np.asarray(Image.open(p)).tobytes(): p.parent.name for p in root.rglob("[0-9]*.png")}
    for image, label in zip(x, y, strict=True):
        assert files[image.permute(1, 2, 0).to(torch.uint8).numpy().tobytes()] == ("cat", "dog")[label]


def test_images_without_classes(tmp_path):
    folder(tmp_path, classes=(), mode="L")
    train, _ = load_dataset(config("images", root=tmp_path, test_fraction=0.2))
    assert train.labels is None
    assert train.num_classes is None
    assert train.event_shape == (1, 4, 5)


def test_unexpected_shape():
    with pytest.raises(ValueError, match=r"have shape \(1, 8, 8\), config.data.event_shape is \(1, 28, 28\)"):
        load_dataset(config("digits", event_shape=(1, 28, 28)))


def test_image_refusals(tmp_path):
    with pytest.raises(ValueError, match=r"config.data.root = .*nowhere does not exist"):
        load_dataset(config("images", root=tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images in"):
        load_dataset(config("images", root=tmp_path / "empty"))
    folder(tmp_path / "a")
    folder(tmp_path / "a", count=1, mode="L", classes=("fox",))
    with pytest.raises(ValueError, match=r"mode 6 RGB, 1 L: set config\.data\.mode"):
        load_dataset(config("images", root=tmp_path / "a"))
    assert load_dataset(config("images", root=tmp_path / "a", mode="L", test_fraction=0.2))[0].event_shape == (1, 4, 5)
    folder(tmp_path / "b")
    folder(tmp_path / "b", count=1, size=(9, 9), classes=("zebra",))
    with pytest.raises(ValueError, match=r"zebra/0\.png is 9x9 pixels, the first one is 5x4"):
        load_dataset(config("images", root=tmp_path / "b"))
    (tmp_path / "b" / "zebra" / "0.png").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"zebra/0\.png is damaged"):
        load_dataset(config("images", root=tmp_path / "b"))
    (tmp_path / "c.zip").write_bytes(b"junk")
    with pytest.raises(ValueError, match="neither a folder nor a readable zip"):
        load_dataset(config("images", root=tmp_path / "c.zip"))


@pytest.mark.parametrize("name", TOYS)
def test_toys(name):
    train, test = load_dataset(config("points", name=name))
    assert train.event_shape == (2,)
    assert len(train) + len(test) == 25_000
    assert torch.bincount(train.labels).min() > 1000
    z = train.transform.encode(train.items)
    assert z.mean(0).abs().max() < 0.05
    torch.testing.assert_close(z.std(0), torch.ones(2), rtol=0.05, atol=0)
    again, _ = load_dataset(config("points", name=name))
    assert torch.equal(again.items, train.items)


def test_arrays(tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 3, 7))
    np.save(tmp_path / "x.npy", x)
    train, test = load_dataset(config("points", root=tmp_path / "x.npy"))
    assert train.event_shape == (3, 7)
    assert (len(train), len(test)) == (45, 5)
    np.savez(tmp_path / "q.npz", x=np.arange(40).reshape(20, 2) % 5, labels=np.arange(20) % 3)
    train, _ = load_dataset(config("points", root=tmp_path / "q.npz", levels=5))
    assert train.transform.levels == 5
    assert train.num_classes == 3


def test_array_refusals(tmp_path):
    def refused(words, array, **keys):
        np.save(tmp_path / "x.npy", array)
        with pytest.raises(ValueError, match=words):
            load_dataset(config("points", root=tmp_path / "x.npy", **keys))

    bad = np.ones((10, 2))
    bad[[3, 7]] = np.nan
    refused(r"2 of 10 items contain NaN or infinity \(first: 3\)", bad)
    refused("set config.data.levels", np.ones((10, 2), int))
    refused("integers from 0 to 3", np.full((10, 2), 9), levels=4)
    refused("needs numbers", np.ones(10))
    refused("constant", np.ones((10, 2)))
    refused("both parts need one", np.random.default_rng(0).normal(size=(10, 2)), test_fraction=0.01)
    (tmp_path / "x.npy").write_bytes(b"junk")
    with pytest.raises(ValueError, match="not a readable"):
        load_dataset(config("points", root=tmp_path / "x.npy"))
    with pytest.raises(ValueError, match="moons, ring, checkerboard, spiral"):
        load_dataset(config("points", name="circles"))
    with pytest.raises(ValueError, match=", ".join(DATASETS)):
        load_dataset(config("cifar"))
