"""Data sets by name: their training and held-out part."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sde.condition.tree import FEATURES
from sde.data.arrays import open_array
from sde.data.conditioning import conditioned, downsampled
from sde.data.dataset import Dataset, Items
from sde.data.idx import read_idx
from sde.data.images import read_images
from sde.data.statistics import measure
from sde.data.toys import TOYS, labelled_toys
from sde.data.transform import Transform

Split = tuple[Dataset, Dataset]
"""The training and the held-out part."""


def digits(config) -> Split:
    """scikit-learn's 1,797 real 8x8 digits with 17 levels: 1,437 to train, 360 held out, always the same."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[:, None]
    train, test = train_test_split(np.arange(len(images)), test_size=360, random_state=0, stratify=bunch.target)
    first, second = (
        Dataset(
            torch.from_numpy(images[part]),
            torch.from_numpy(bunch.target[part].astype(np.int64)),
            10,
            Transform.of_levels(17),
        )
        for part in (train, test)
    )
    return first, second


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
    num_classes = int(parts[0][1].max()) + 1
    for (x, labels), part in zip(parts, ("train", "t10k"), strict=True):
        if len(x) != len(labels) or int(labels.max()) >= num_classes:
            raise ValueError(
                f"config.data.root = {root}: the {part} files hold {len(x)} images and {len(labels)} labels up to "
                f"{int(labels.max())} of {num_classes} classes: they do not belong together"
            )
    train, test = (Dataset(x, labels, num_classes, Transform.of_levels(256)) for x, labels in parts)
    return train, test


def images(config) -> Split:
    """A folder or a zip of images under ``config.root``, one sub-folder a class where there are any; 256 levels.

    ``config.test_root`` is the held-out part; without it, ``config.test_fraction`` of the images is. The other keys
    are those of ``read_images``.
    """

    def read(path: str, key: str):
        return read_images(existing(path, key), config.mode, config.size, config.workers, config.cache)

    items, labels, names = read(config.root, "config.data.root")
    if not config.test_root:
        return split(items, labels, Transform.of_levels(256), config.test_fraction)
    held_out, test_labels, test_names = read(config.test_root, "config.data.test_root")
    if names != test_names:
        raise ValueError(
            f"config.data.test_root has the classes {test_names}, config.data.root has {names}: they must be the same"
        )
    parts = (items, labels), (held_out, test_labels)
    train, test = (Dataset(x, y, len(names) or None, Transform.of_levels(256)) for x, y in parts)
    return train, test


def points(config) -> Split:
    """A toy set in the plane by name (``config.name``), or the items (n, *event) of a .npy, .npz or .csv file
    (``config.root``), whose channels are where ``config.layout`` says, and those of the ``config.conditions`` that an
    .npz has.

    Integers need ``config.levels``; floats are continuous and standardized per channel.
    """
    if config.root:
        path = existing(config.root, "config.data.root")
        kinds = [kind for kind in FEATURES if kind in config.conditions]
        items, labels, statistics, conditions = open_array(path, config.layout, kinds)
        if statistics.count < 2:
            raise ValueError(
                f"config.data.root = {path} holds one item: needs one to train and one to hold out at least"
            )
    elif config.name in TOYS:
        items, labels = labelled_toys(config.name, 25_000)
        statistics, conditions = measure(items), None
    else:
        raise ValueError(
            f"config.data.name = {config.name!r}: needs one of {', '.join(TOYS)}, or an array in config.data.root"
        )
    levels = config.levels or None
    if levels and not (statistics.low >= 0 and statistics.high < levels and statistics.whole):
        raise ValueError(
            f"config.data.levels = {levels}: the data must be integers from 0 to {levels - 1}, "
            f"and {'run' if statistics.whole else 'are fractions'} from {statistics.low:g} to {statistics.high:g}"
        )
    transform = Transform.of_levels(levels) if levels else Transform.standardize(statistics)
    return split(items, labels, transform, config.test_fraction, conditions)


def split(
    items: Items,
    labels: Tensor | None,
    transform: Transform,
    test_fraction: float,
    conditions: dict[str, Tensor] | None = None,
) -> Split:
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
    train, test = (
        Dataset(
            take(part),
            None if labels is None else labels[part],
            num_classes,
            transform,
            {kind: c[part] for kind, c in (conditions or {}).items()},
        )
        for part in parts
    )
    return train, test


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
    """The training and held-out part of ``config.dataset``, a key of DATASETS: of block means by ``config.downsample``,
    and with the ``config.conditions``, of which superres has block means by ``config.factor``."""
    if config.dataset not in DATASETS:
        raise ValueError(f"config.data.dataset = {config.dataset!r}: needs one of {', '.join(DATASETS)}")
    if config.workers < 0:
        raise ValueError(f"config.data.workers = {config.workers}: needs zero, to read in the main thread, or more")
    parts = DATASETS[config.dataset](config)
    if config.downsample != 1:
        parts = downsampled(parts, config.downsample)
    train, test = (conditioned(part, tuple(config.conditions), config.factor) for part in parts)
    expected = tuple(config.event_shape)
    for key, part in (("root", train), ("test_root", test)):
        if expected and part.event_shape != expected:
            raise ValueError(
                f"items in config.data.{key} have shape {part.event_shape}, config.data.event_shape is {expected}: "
                f"{_remedy(part.event_shape, expected)}"
            )
    return train, test


def _remedy(found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    if found == (*expected[1:], expected[0]):
        return "if their last axis holds the channels, set config.data.layout=channels_last"
    if (1, *found) == expected:
        return "if they have no axis of channels, set config.data.layout=no_channels"
    if sorted(found) == sorted(expected):
        return "the axes are in another order; items are (channels, *space), images (channels, height, width)"
    return "correct it, or set it to () to take the data as they are"
