"""Datasets: items x (n, *event) in data units, optional labels, and the transform into model units."""

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sde.toys import TOYS, labelled_toys
from sde.transform import Transform


@dataclass
class Dataset:
    """``items`` (n, *event), integers (quantised) or floats; ``labels`` (n,) in [0, num_classes), or None.

    ``items`` is a tensor, or anything with ``shape`` and indexing by a tensor that returns one, such as files read on
    demand.
    """

    items: Tensor
    labels: Tensor | None
    num_classes: int | None
    transform: Transform

    def __len__(self) -> int:
        return self.items.shape[0]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of an item."""
        return tuple(self.items.shape[1:])

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Items (B, *event) as float32 in data units, and their labels (B,)."""
        return self.items[index].to(torch.float32), None if self.labels is None else self.labels[index]


Split = tuple[Dataset, Dataset]
"""The training and the held-out part."""


def digits(config) -> Split:
    """scikit-learn's 1,797 real 8x8 digits with 17 levels: 1,437 to train, 360 held out, always the same."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[:, None]
    train, test = train_test_split(np.arange(len(images)), test_size=360, random_state=0, stratify=bunch.target)
    return tuple(
        Dataset(
            torch.from_numpy(images[part]),
            torch.from_numpy(bunch.target[part].astype(np.int64)),
            10,
            Transform.of_levels(17),
        )
        for part in (train, test)
    )


IDX_TYPES = {
    0x08: np.uint8,
    0x09: np.int8,
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}


def read_idx(path: Path) -> np.ndarray:
    """An array from an IDX file (the format of MNIST), gzipped or not. Raises ValueError for a damaged file."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            content = file.read()
        kind, dims = content[2], content[3]
        shape = np.frombuffer(content, ">i4", dims, offset=4)
        return np.frombuffer(content, IDX_TYPES[kind], offset=4 + 4 * dims).reshape(shape)
    except (EOFError, OSError, zlib.error, IndexError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a readable IDX file ({error}): fetch it again") from None


def mnist(config) -> Split:
    """The four IDX files of MNIST (or of a data set in its format), plain or gzipped, under ``config.root``."""
    root = existing(config.root, "config.data.root")

    def load(name: str) -> Tensor:
        found = [path for path in (root / name, root / f"{name}.gz") if path.exists()]
        if not found:
            raise ValueError(f"config.data.root = {root} has no {name} or {name}.gz: it must hold the four MNIST files")
        return torch.from_numpy(read_idx(found[0]).copy())

    parts = [
        (load(f"{part}-images-idx3-ubyte")[:, None], load(f"{part}-labels-idx1-ubyte").long())
        for part in ("train", "t10k")
    ]
    num_classes = class_count(parts[0][1])
    for (x, labels), part in zip(parts, ("train", "t10k"), strict=True):
        if len(x) != len(labels) or int(labels.max()) >= num_classes:
            raise ValueError(
                f"config.data.root = {root}: the {part} files hold {len(x)} images and {len(labels)} labels up to "
                f"{int(labels.max())} of {num_classes} classes: they do not belong together"
            )
    return tuple(Dataset(x, labels, num_classes, Transform.of_levels(256)) for x, labels in parts)


def images(config) -> Split:
    """A folder or a zip of images under ``config.root``, one sub-folder a class where there are any; 256 levels.

    ``config.test_root`` is the held-out part; without it, ``config.test_fraction`` of the images is.
    """
    from sde.images import read_images

    items, labels, names = read_images(existing(config.root, "config.data.root"), config.mode)
    if not config.test_root:
        return split(items, labels, Transform.of_levels(256), config.test_fraction)
    held_out, test_labels, test_names = read_images(existing(config.test_root, "config.data.test_root"), config.mode)
    if names != test_names:
        raise ValueError(
            f"config.data.test_root has the classes {test_names}, config.data.root has {names}: they must be the same"
        )
    parts = (items, labels), (held_out, test_labels)
    return tuple(Dataset(x, y, len(names) or None, Transform.of_levels(256)) for x, y in parts)


def points(config) -> Split:
    """A toy set in the plane by name (``config.name``), or an array from a ``.npy`` or ``.npz`` file (``config.root``).

    Of a ``.npz``, the array "x" (or the only one) is the data, (n, *event), and "labels" the classes, where present.
    Integers need ``config.levels``; floats are continuous and standardised per channel.
    """
    if not config.root:
        if config.name not in TOYS:
            raise ValueError(
                f"config.data.name = {config.name!r}: needs one of {', '.join(TOYS)}, or an array in config.data.root"
            )
        x, labels = labelled_toys(config.name, 25_000)
    else:
        x, labels = read_array(existing(config.root, "config.data.root"))
    levels = config.levels or None
    if levels is None and not x.is_floating_point():
        raise ValueError(
            f"config.data.root = {config.root} holds integers ({x.dtype}) from {x.min()} to {x.max()}: set "
            "config.data.levels for quantised data, or store them as floats"
        )
    if levels and (x.min() < 0 or x.max() >= levels or (x != x.round()).any()):
        raise ValueError(
            f"config.data.levels = {levels}: the data must be integers from 0 to {levels - 1}, "
            f"and run from {x.min()} to {x.max()}"
        )
    transform = Transform.of_levels(levels) if levels else Transform.standardise(x)
    return split(x, labels, transform, config.test_fraction)


def read_array(path: Path) -> tuple[Tensor, Tensor | None]:
    """Data and labels of a ``.npy`` or ``.npz`` file. Raises ValueError for damaged files and non-finite items."""
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"x": loaded}
    except Exception as error:
        raise ValueError(f"config.data.root = {path} is not a readable .npy or .npz file ({error})") from None
    labels = arrays.pop("labels", None)
    if "x" not in arrays and len(arrays) != 1:
        raise ValueError(f"config.data.root = {path} holds {', '.join(arrays) or 'nothing'}: name the data x")
    x = arrays.get("x", next(iter(arrays.values())))
    if x.ndim < 2 or not (np.issubdtype(x.dtype, np.integer) or np.issubdtype(x.dtype, np.floating)):
        raise ValueError(f"config.data.root = {path} has shape {x.shape} and type {x.dtype}: needs numbers (n, ...)")
    bad = np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(1))
    if len(bad):
        raise ValueError(
            f"config.data.root = {path}: {len(bad)} of {len(x)} items contain NaN or infinity (first: {bad[0]})"
        )
    if labels is not None and (
        labels.shape != (len(x),) or not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0
    ):
        raise ValueError(
            f"config.data.root = {path}: labels must be {len(x)} integers from 0, not {labels.dtype} of shape "
            f"{labels.shape}"
        )
    x = x.astype(np.float32 if np.issubdtype(x.dtype, np.floating) else np.int64)
    return torch.from_numpy(x), None if labels is None else torch.from_numpy(labels.astype(np.int64))


def split(items: Tensor, labels: Tensor | None, transform: Transform, test_fraction: float) -> Split:
    """A fixed random part of the items is held out."""
    count = items.shape[0]
    held_out = round(count * test_fraction)
    if not 1 <= held_out < count:
        raise ValueError(
            f"config.data.test_fraction = {test_fraction} of {count} items is {held_out}: both parts need one"
        )
    order = torch.from_numpy(np.random.default_rng(0).permutation(count))
    parts = order[held_out:].sort().values, order[:held_out].sort().values
    take = getattr(items, "part", items.__getitem__)
    num_classes = class_count(labels)
    return tuple(
        Dataset(take(part), None if labels is None else labels[part], num_classes, transform) for part in parts
    )


def class_count(labels: Tensor | None) -> int | None:
    """One more than the largest label."""
    return None if labels is None else int(labels.max()) + 1


def existing(path: str, key: str) -> Path:
    """The path, or a ValueError that names the key."""
    if not path:
        raise ValueError(f"{key} is empty: set it to where the data is")
    if not Path(path).exists():
        raise ValueError(f"{key} = {path} does not exist (looked in {Path.cwd()})")
    return Path(path)


DATASETS: dict[str, Callable[..., Split]] = {"digits": digits, "mnist": mnist, "images": images, "points": points}


def load_dataset(config) -> Split:
    """The training and held-out part of ``config.dataset``, a key of DATASETS."""
    if config.dataset not in DATASETS:
        raise ValueError(f"config.data.dataset = {config.dataset!r}: needs one of {', '.join(DATASETS)}")
    train, test = DATASETS[config.dataset](config)
    expected = tuple(config.event_shape)
    for key, part in (("root", train), ("test_root", test)):
        if expected and part.event_shape != expected:
            raise ValueError(
                f"items in config.data.{key} have shape {part.event_shape}, config.data.event_shape is {expected}: "
                "correct it, or set it to () to take the data as they are"
            )
    return train, test
