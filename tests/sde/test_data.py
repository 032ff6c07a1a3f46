"""Datasets of arrays: what is read, what is held out, and the sentence for each thing that cannot be read."""

import gzip
import re

import numpy as np
import pytest
import torch

from score_sde.config.component import options_of
from score_sde.config.config import resolve
from score_sde.config.options import SHARED, DataOptions, data_defaults, own_keys
from sde import data
from sde.data import DATASETS, arrays
from sde.data.array_files import ArrayFile
from sde.data.arrays import open_array
from sde.data.dataset import Dataset
from sde.data.idx import read_idx
from sde.data.statistics import measure, spread
from sde.data.toys import TOYS
from sde.data.transform import Transform
from tests.sde.small_data import config, load_dataset, refused


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_digits():
    train, test = load_dataset(**config("digits"))
    assert (len(train), len(test)) == (1437, 360)
    assert train.event_shape == (1, 8, 8)
    assert train.num_classes == test.num_classes == 10
    assert (train.items.min(), train.items.max(), train.transform.num_levels) == (0, 16, 17)
    assert torch.bincount(test.labels).min() >= 34
    everything = {row.numpy().tobytes() for row in train.items}
    assert sum(row.numpy().tobytes() in everything for row in test.items) == 0
    x, cond = test.batch(torch.tensor([3, 5]))
    assert x.dtype == torch.float32
    assert cond.keys() == {"labels"}
    assert cond["labels"].tolist() == test.labels[[3, 5]].tolist()


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    (gzip.open if path.suffix == ".gz" else open)(path, "wb").write(header + array.astype(np.uint8).tobytes())


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files(tmp_path, suffix):
    array = np.arange(5 * 4 * 3).reshape(5, 4, 3)
    for part in ("train", "t10k"):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{suffix}", array)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{suffix}", np.arange(5))
    train, _ = load_dataset(**config("mnist", root=tmp_path))
    assert train.event_shape == (1, 4, 3)
    assert train.num_classes == 5
    assert train.items[1, 0, 2, 1] == array[1, 2, 1]
    path = tmp_path / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(ValueError, match="not a readable IDX file"):
        read_idx(path)
    path.unlink()
    with pytest.raises(ValueError, match="must hold the four MNIST files"):
        load_dataset(**config("mnist", root=tmp_path))


@pytest.mark.parametrize("name", TOYS)
def test_toys(name):
    train, test = load_dataset(**config("points", toy=name))
    assert train.event_shape == (2,)
    assert len(train) + len(test) == 25_000
    assert torch.bincount(train.labels).min() > 1000
    z = train.transform.encode(train.items)
    assert z.mean(0).abs().max() < 0.05
    torch.testing.assert_close(z.std(0), torch.ones(2), rtol=0.05, atol=0)
    again, _ = load_dataset(**config("points", toy=name))
    assert torch.equal(again.items, train.items)


@pytest.mark.parametrize("event", [(5,), (3, 17), (1, 28, 28), (3, 37, 50), (2, 9, 10, 11)])
@pytest.mark.parametrize("on_demand", [False, True])
def test_arrays_of_every_shape(tmp_path, monkeypatch, event, on_demand):
    monkeypatch.setattr(arrays, "IN_MEMORY", 0 if on_demand else 2**31)
    x = numbers(20, *event) * 3 + 7
    np.save(tmp_path / "x.npy", x)
    train, test = load_dataset(**config("points", root=tmp_path / "x.npy", test_fraction=0.25))
    assert isinstance(train.items, ArrayFile) == on_demand
    assert (len(train), len(test), train.event_shape, train.labels) == (15, 5, event, None)
    batches = torch.cat([part.batch(torch.arange(len(part)))[0] for part in (train, test)])
    rows = {row.tobytes() for row in x.astype(np.float32)}
    assert {row.numpy().tobytes() for row in batches} == rows
    own = train.batch(torch.arange(15))[0].double()
    channels = own.movedim(1, 0).reshape(event[0], -1)
    torch.testing.assert_close(torch.tensor(train.transform.shift).double(), channels.mean(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.tensor(train.transform.scale).double(), channels.std(1, correction=0))
    np.save(tmp_path / "last.npy", np.moveaxis(x, 1, -1))
    last, _ = load_dataset(**config("points", root=tmp_path / "last.npy", channels="last", test_fraction=0.25))
    index = torch.tensor([3, 14, 3])
    assert torch.equal(last.batch(index)[0], train.batch(index)[0])
    if on_demand:
        part = train.items.part(torch.arange(3, 15)).part(torch.tensor([11, 0]))
        assert torch.equal(part[torch.tensor([1, 0])], train.items[index[:2]])


def test_arrays_without_an_axis_of_channels(tmp_path):
    x = numbers(20, 6, 7)
    np.save(tmp_path / "x.npy", x)
    train, _ = load_dataset(**config("points", root=tmp_path / "x.npy", channels="none"))
    assert train.event_shape == (1, 6, 7)
    assert len(train.transform.scale) == 1


@pytest.mark.parametrize("kind", ["u1", "i1", "<i2", ">i4", "i8", "u2", "u8", "<f2", ">f4", "f8"])
def test_types_of_numbers(tmp_path, kind):
    x = (np.arange(40).reshape(20, 2) % 5).astype(kind)
    np.savez(tmp_path / "q.npz", x=x, labels=np.arange(20) % 3)
    train, test = load_dataset(**config("points", root=tmp_path / "q.npz", num_levels=5))
    assert (train.transform.num_levels, train.num_classes) == (5, 3)
    assert train.items.dtype.is_floating_point == ("f" in kind)
    assert sorted(map(tuple, torch.cat([train.items, test.items]).tolist())) == sorted(map(tuple, x.tolist()))


def test_an_array_that_may_hold_the_classes_is_named(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 2))
    np.savez(tmp_path / "q.npz", x=x, y=np.arange(20) % 3, seeds=np.arange(20), extra=np.zeros(20))
    with pytest.warns(UserWarning, match=r"q\.npz: the array y is left out: if it holds the classes, name it labels"):
        train, _ = load_dataset(**config("points", root=tmp_path / "q.npz"))
    assert train.num_classes is None


def test_row_1_integers_without_levels(tmp_path):
    """Demands, row 1; floats that are integers are the audit's."""
    path = tmp_path / "x.npy"
    np.save(path, np.arange(256, dtype=np.uint8).reshape(64, 4))
    refused(
        "config.data.num_levels = 0, but the items are integers (torch.uint8) from 0 to 255: set it to the number of "
        "levels of quantized data, or store them as floats",
        load_dataset, **config("points", root=path, test_fraction=0.5),
    )  # fmt: skip
    refused("config.data.num_levels = 4: the data must be integers from 0 to 3, and run from 0 to 255",
            load_dataset, **config("points", root=path, num_levels=4))  # fmt: skip
    np.save(path, numbers(10, 2) * 0.01 + 1)
    with pytest.raises(ValueError, match=r"must be integers from 0 to 255, and are fractions from 0\.9\d+ to 1\.0\d+$"):
        load_dataset(**config("points", root=path, num_levels=256))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("on_demand", [False, True])
def test_row_3_not_finite(tmp_path, monkeypatch, bad, on_demand):
    monkeypatch.setattr(arrays, "IN_MEMORY", 0 if on_demand else 2**31)
    monkeypatch.setattr("sde.data.statistics.VALUES_AT_ONCE", 12)
    x, path = numbers(4096, 2), tmp_path / "x.npy"
    x[[17, 40, 4000], [0, 1, 0]] = bad
    np.save(path, x)
    sentence = f"{path}: %d of 4096 items contain NaN or infinity (first: %d): remove or repair them"
    refused(sentence % (3, 17), load_dataset, **config("points", root=path))
    x[:] = 1e300
    np.save(path, x)
    refused(sentence % (4096, 0), load_dataset, **config("points", root=path))


def test_one_item(tmp_path):
    path = tmp_path / "x.npy"
    for event in ((4,), (3, 8, 8)):
        np.save(path, numbers(1, *event))
        refused(f"config.data.root = {path} holds one item: needs one to train and one to hold out at least",
                load_dataset, **config("points", root=path))  # fmt: skip


def test_row_3_constant_channel(tmp_path):
    x, path = numbers(50, 3, 4), tmp_path / "x.npy"
    x[:, 1] = 0.1
    np.save(path, x)
    refused("channel 1 of the data is constant, at 0.1: leave it out, it has no density",
            load_dataset, **config("points", root=path))  # fmt: skip
    x[:, 2] = -7.25e9
    np.save(path, x)
    refused("channel 1 of the data is constant (2 channels are), at 0.1: leave it out, it has no density",
            load_dataset, **config("points", root=path))  # fmt: skip


@pytest.mark.parametrize(("expected", "remedy"), [
    ((3, 8, 9), "if their last axis holds the channels, set config.data.channels=last"),
    ((1, 8, 9, 3), "if they have no axis of channels, set config.data.channels=none"),
    ((9, 3, 8), "the axes are in another order; items are (channels, *space), images (channels, height, width)"),
    ((3, 28, 28), "correct it, or set it to () to take the data as they are"),
])  # fmt: skip
def test_rows_8_and_9_axes_in_another_order(tmp_path, expected, remedy):
    np.save(tmp_path / "x.npy", numbers(20, 8, 9, 3))
    refused(
        f"items in config.data.root have shape (8, 9, 3), config.data.event_shape is {expected}: {remedy}",
        load_dataset, **config("points", root=tmp_path / "x.npy", event_shape=expected),
    )  # fmt: skip


def test_row_9_sequences_with_channels_last(tmp_path):
    np.save(tmp_path / "x.npy", numbers(23, 64, 198))
    keys = {"root": tmp_path / "x.npy", "event_shape": (198, 64)}
    with pytest.raises(ValueError, match=r"config\.data\.channels=last$"):
        load_dataset(**config("points", **keys))
    assert load_dataset(**config("points", channels="last", **keys))[0].event_shape == (198, 64)


@pytest.mark.parametrize(("labels", "reason"), [
    (np.arange(20) % 3 + 0.5, "the labels have type float64, and label 0 is 0.5: store the numbers of the classes, "
     "from 0, as integers"),
    (np.where(np.arange(20) == 4, np.nan, 1.0), "the labels have type float64, and label 4 is nan: store the numbers "
     "of the classes, from 0, as integers"),
    (np.arange(20) * 1j, "the labels have type complex128: store the numbers of the classes, from 0, as integers"),
    (np.array([*["a"] * 19, " "]), "label 19 is empty: name a class for each item, or leave the item out"),
    (np.full(20, 2**64 - 1, np.uint64), "the labels run to 1.84467e+19: number the classes without gaps, from 0"),
    (np.eye(4, dtype=int)[np.arange(20) % 4],
     "the labels have shape (20, 4), needs (20,), one integer per item: if they are one-hot, store their argmax"),
    ((np.arange(20) % 3)[:, None], "the labels have shape (20, 1), needs (20,), one integer per item: flatten them"),
    (np.arange(19) % 3, "the labels have shape (19,), needs (20,), one integer per item"),
    (np.arange(20) % 10 + 1,
     "the labels run from 1 to 10, but classes are numbered from 0 (are they 1-based?): renumber them"),
    (np.arange(20) % 3 - 1, "the labels run from -1 to 1, but classes are numbered from 0: renumber them"),
    (np.arange(20) * 1000, "the labels run to 19000 for 20 items: number the classes without gaps, from 0"),
])  # fmt: skip
def test_row_11_labels(tmp_path, labels, reason):
    path = tmp_path / "x.npz"
    np.savez(path, x=numbers(20, 2), labels=labels)
    refused(f"{path}: {reason}", load_dataset, **config("points", root=path))


def test_array_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.ones(10))
    refused(
        f"{path} has shape (10,) and type float64: needs numbers of shape (n, ...), one row per item", open_array, path
    )
    np.save(path, np.zeros((0, 3)))
    refused(
        f"{path} has shape (0, 3) and type float64: needs numbers of shape (n, ...), one row per item", open_array, path
    )
    np.save(path, np.array([["a"], ["b"]]))
    refused(
        f"{path} has shape (2, 1) and type <U1: needs numbers of shape (n, ...), one row per item", open_array, path
    )
    path.write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"x\.npy is not a readable \.npy, \.npz or \.csv file \("):
        open_array(path)
    np.save(path, numbers(10, 2))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"x\.npy is not a readable \.npy, \.npz or \.csv file \("):
        open_array(path)
    np.savez(tmp_path / "x.npz", a=np.ones((3, 2)), b=np.ones((3, 2)))
    refused(f"{tmp_path / 'x.npz'} holds a, b: name the data x", open_array, tmp_path / "x.npz")
    (empty := tmp_path / "empty").mkdir()
    refused(f"{empty} is a folder without .npy files: needs one with an item in each, or a .npy, .npz or .csv file; "
            "config.data.dataset=images reads folders of images", open_array, empty)  # fmt: skip
    refused("config.data.channels = 'NHWC': needs one of first, last, none",
            open_array, path, "NHWC")  # fmt: skip


def test_unknown_names(tmp_path):
    refused(f"config.data.dataset = 'cifar': needs one of {', '.join(DATASETS)}", load_dataset, **config("cifar"))
    refused(f"config.data.toy = 'circles': needs one of {', '.join(TOYS)}, or an array in config.data.root",
            load_dataset, **config("points", toy="circles"))  # fmt: skip
    with pytest.raises(ValueError, match=r"^config\.data\.root = .*nowhere does not exist \(looked in "):
        load_dataset(**config("points", root=tmp_path / "nowhere"))


def test_held_out_part():
    with pytest.raises(ValueError, match="both parts need one"):
        load_dataset(**config("points", test_fraction=0.00001))
    train, test = load_dataset(**config("points", test_fraction=0.2))
    assert (len(train), len(test)) == (20_000, 5_000)
    assert len(torch.cat([train.items, test.items]).unique(dim=0)) == 25_000


def test_datasets_refuse_what_does_not_fit():
    x = torch.randn(4, 2)
    refused("there are 3 labels for 4 items: needs one per item", Dataset, x, torch.tensor([0, 1, 0]), 2, Transform())
    refused("label 2 is out of range: allowed are 0 to 1 (are they 1-based?)",
            Dataset, x, torch.tensor([1, 2, 1, 2]), 2, Transform())  # fmt: skip
    refused("labels must be integers of shape (B,); got torch.float32 of shape (4,)",
            Dataset, x, torch.zeros(4), 2, Transform())  # fmt: skip


def test_small_sets_go_to_the_device_whole():
    data = Dataset(torch.arange(12.0).view(6, 2), torch.arange(6) % 2, 2, Transform())
    assert data.to(torch.device("meta"), limit=47) is data
    moved = data.to(torch.device("meta"), limit=48)
    assert moved.items.device.type == moved.labels.device.type == "meta"
    x, cond = moved.batch(torch.tensor([0, 5]))
    y = cond["labels"]
    assert (x.device.type, y.device.type, tuple(x.shape), tuple(y.shape)) == ("meta", "meta", (2, 2), (2,))
    assert torch.equal(data.to(torch.device("cpu")).batch(torch.tensor([5]))[0], torch.tensor([[10.0, 11.0]]))


@pytest.mark.parametrize("at_once", [1, 30, 2**22])
def test_statistics_in_one_pass(monkeypatch, at_once):
    monkeypatch.setattr("sde.data.statistics.VALUES_AT_ONCE", at_once)
    x = torch.from_numpy(numbers(101, 3, 4)) * torch.tensor([1.0, 1e-3, 50.0])[:, None] + 1e4
    found = measure(x)
    assert (found.count, found.whole) == (101, False)
    assert (found.low, found.high) == (x.min(), x.max())
    assert torch.equal(torch.stack(found.ranges()), torch.stack([x.amin((0, 2)), x.amax((0, 2))]))
    torch.testing.assert_close(found.mean, x.mean(0), rtol=1e-13, atol=0)
    torch.testing.assert_close(found.var, x.var(0, correction=0), rtol=1e-7, atol=0)
    mean, std = found.channels()
    torch.testing.assert_close(mean, x.mean((0, 2)), rtol=1e-13, atol=0)
    torch.testing.assert_close(std, x.std((0, 2), correction=0), rtol=1e-7, atol=0)
    some = measure(x, torch.tensor([4, 9]))
    torch.testing.assert_close(some.mean, x[[4, 9]].mean(0))
    assert measure(torch.arange(6).view(3, 2)).whole


def test_positions_spread_over_a_set():
    assert spread(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert spread(101, 3).tolist() == [0, 50, 100]
    large = spread(10**9, 1000)
    assert (large[0], large[-1], len(large.unique())) == (0, 10**9 - 1, 1000)


@pytest.mark.parametrize("levels", [None, 17])
def test_moments_in_model_units(levels):
    """Against dequantized items, encoded, at the midpoints of many equal parts of [0, 1)."""
    x = torch.randint(0, 17, (200, 2, 3), generator=torch.Generator().manual_seed(0)).double()
    transform = Transform.of_levels(17) if levels else Transform((3.0, 5.0), (2.0, 0.5))
    data = Dataset(x, None, None, transform)
    u = ((torch.arange(64) + 0.5) / 64).view(-1, 1, 1, 1) if levels else torch.zeros(1, 1, 1, 1)
    z = transform.encode((x.unsqueeze(1) + u.view(1, -1, 1, 1)).flatten(0, 1))
    mean, var = data.moments
    torch.testing.assert_close(mean, z.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(var, z.var(0, correction=0), rtol=1e-5, atol=0)
    assert data.sigma_data == pytest.approx(z.square().mean().sqrt().item(), rel=1e-5)


def test_the_options_are_those_of_the_sets():
    """Each key of config.data is a keyword argument of ``load_dataset`` or of some sets, with the same default."""
    own = {"digits": set(), "mnist": {"root"}}
    own["images"] = {"root", "test_root", "color_mode", "resolution", "cache", "test_fraction"}
    own["points"] = {"root", "toy", "channels", "columns", "num_levels", "test_fraction", "label_by", "group_by"}
    assert {dataset: {*own_keys(dataset)} for dataset in DATASETS} == own
    options = data_defaults("digits")
    assert options.keys() == {*SHARED, "kind", "pairs", "cache_latents"}.union(*own.values()), "these no set is asked"
    for dataset, keys in own.items():
        assert {key: options_of(DATASETS[dataset])[key] for key in keys} == {key: options[key] for key in keys}
        assert DataOptions.of({**options, "dataset": dataset}).arguments().keys() == keys | {*SHARED}
    shared = {key: value for key, value in options_of(data.load_dataset).items() if key in SHARED}
    assert shared == {key: options[key] for key in SHARED if key != "dataset"}


def test_a_set_of_ones_own(monkeypatch):
    def constant(root="", value=1, *, conditions=()):
        return tuple(Dataset(torch.full((3, 2), float(root) * value), None, None, Transform()) for _ in range(2))

    monkeypatch.setitem(DATASETS, "constant", constant)
    config = resolve({"data": {"dataset": "constant", "root": "4"}}, ["--config.data.value=3"])
    train, _ = load_dataset(**config.data.arguments())
    assert (train.items == 12).all()
    assert config.data.to_dict()["value"] == 3


def test_the_library_speaks_of_its_own_arguments():
    """Without a door, its sentences name arguments; at the door these are keys."""
    for options, sentence, key in (
        ({"dataset": "cifar"}, "dataset = 'cifar': needs one of", "config.data.dataset = 'cifar'"),
        ({"dataset": "points", "num_levels": 3}, "num_levels = 3: the data", "config.data.num_levels = 3: the data"),
        ({"dataset": "mnist"}, "`root` is empty: set it", "config.data.root is empty: set it"),
        ({"dataset": "digits", "event_shape": (8, 1, 8)}, "set channels=last", "set config.data.channels=last"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)) as found:
            data.load_dataset(**options)
        assert "config." not in str(found.value)
        with pytest.raises(ValueError, match=re.escape(key)):
            load_dataset(**options)
