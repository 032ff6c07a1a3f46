"""Data sets by name: functions of keyword arguments that return the training and the held-out part."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch
from torch import Tensor

from sde.condition.tree import FEATURES
from sde.data.arrays import Arrays, open_array
from sde.data.captions import TEXT
from sde.data.dataset import Dataset
from sde.data.folders import Folder
from sde.data.idx import read_idx
from sde.data.images import read_images
from sde.data.names import CLASS_NAMES
from sde.data.split import Split, split
from sde.data.statistics import measure
from sde.data.toys import TOYS, labeled_toys
from sde.data.transform import Transform
from sde.files import expanded
from sde.named import component


def digits() -> Split:
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


def mnist(root: str = "") -> Split:
    """The four IDX files of MNIST (or of a data set in its format), plain or gzipped, under ``root``."""
    place = existing(root, "`root`")

    def load(name: str) -> Tensor:
        found = [path for path in (place / name, place / f"{name}.gz") if path.exists()]
        if not found:
            raise ValueError(f"root = {root} has no {name} or {name}.gz: it must hold the four MNIST files")
        return torch.from_numpy(read_idx(found[0]).copy())

    parts = [
        (load(f"{part}-images-idx3-ubyte")[:, None], load(f"{part}-labels-idx1-ubyte").long())
        for part in ("train", "t10k")
    ]
    num_classes = int(parts[0][1].max()) + 1
    for (x, labels), part in zip(parts, ("train", "t10k"), strict=True):
        if len(x) != len(labels) or int(labels.max()) >= num_classes:
            raise ValueError(
                f"root = {root}: the {part} files hold {len(x)} images and {len(labels)} labels up to "
                f"{int(labels.max())} of {num_classes} classes: they do not belong together"
            )
    train, test = (Dataset(x, labels, num_classes, Transform.of_levels(256)) for x, labels in parts)
    return train, test


def images(
    root: str = "",
    test_root: str = "",
    color_mode: str = "",
    resolution: int = 0,
    test_fraction: float = 0.1,
    cache: str = "",
    *,
    conditions: Sequence[str] = (),
    workers: int = 0,
) -> Split:
    """A folder or a zip of images under ``root``, one sub-folder per class where there are any; 256 levels.

    ``test_root`` is the held-out part; without it, the folder test or val beside train is, or else ``test_fraction`` of
    the images. With text among the ``conditions`` the folder has a caption for each image (``Folder.captions``). The
    other arguments are those of ``read_images``.
    """
    own, beside = Folder(existing(root, "`root`")).parts()
    held_out = Folder(existing(test_root, "`test_root`")) if test_root else beside

    def read(folder: Folder, names: Sequence[str] | None = None):
        return read_images(folder, color_mode, resolution, workers, cache, names)

    def texts(folder: Folder) -> list[str] | None:
        return folder.captions() if TEXT in conditions else None

    captions = texts(own)
    items, labels, names = read(own)
    about: dict[str, Any] = {CLASS_NAMES: names} if names else {}
    # Pictures of one's own are made as large.
    about |= {"resolution": resolution} if resolution else {}
    if held_out is None:
        return split(items, labels, Transform.of_levels(256), test_fraction, about=about, captions=captions)
    test_items, test_labels, _ = read(held_out, names)
    if test_items.shape[1:] != items.shape[1:]:
        raise ValueError(
            f"the held-out images have the shape {tuple(test_items.shape[1:])}, those to train on "
            f"{tuple(items.shape[1:])}: set `color_mode` and `resolution`, to which both are converted"
        )
    parts = (items, labels, captions), (test_items, test_labels, texts(held_out))
    train, test = (
        Dataset(x, y, len(names) or None, Transform.of_levels(256), about=about, captions=told) for x, y, told in parts
    )
    return train, test


def points(
    root: str = "",
    toy: str = "moons",
    channels: str = "first",
    columns: Sequence[str] = (),
    num_levels: int = 0,
    test_fraction: float = 0.1,
    label_by: str = "",
    group_by: str = "",
    *,
    conditions: Sequence[str] = (),
) -> Split:
    """The items (n, *event) of a .npy, .npz or .csv file, ``root``, whose channels are where ``channels`` says, and
    those of the ``conditions`` that an .npz has; without a file the toy set in the plane of the name ``toy``. Of a
    .csv ``columns`` are taken, by default all that hold more than numbers of rows.

    Items of unequal sizes are padded, with the array ``sizes`` (n,) beside them in an .npz, or lie in a folder of .npy
    files, one in each. Integers need ``num_levels``; floats are continuous and standardized per channel, by what is
    real of the training part. Of an .npz the array ``label_by`` has the classes, where it is not called labels, and
    items that have the same number or text in the array ``group_by`` are on one side of the split.
    """
    if root:
        path = existing(root, "`root`")
        kinds = [kind for kind in (*FEATURES, TEXT) if kind in conditions]
        found = open_array(path, channels, kinds, columns, label_by, group_by)
        if found.items.shape[0] < 2:
            raise ValueError(f"root = {path} holds one item: needs one to train and one to hold out at least")
    elif label_by or group_by:
        key, name = ("label_by", label_by) if label_by else ("group_by", group_by)
        raise ValueError(f"{key} = {name!r}: names an array of an .npz: set `root` to one")
    elif toy in TOYS:
        found = Arrays(*labeled_toys(toy, 25_000), {}, [], ())
    else:
        raise ValueError(f"toy = {toy!r}: needs one of {', '.join(TOYS)}, or an array in `root`")
    if num_levels:
        _check_levels(found, num_levels)
    transform = Transform.of_levels(num_levels) if num_levels else None
    about: dict[str, Any] = {CLASS_NAMES: found.classes} if found.classes else {}
    about |= {"columns": list(found.columns)} if found.columns else {}
    return split(
        found.items, found.labels, transform, test_fraction, found.conditions, about, found.sizes, found.groups,
        found.captions,
    )  # fmt: skip


def _check_levels(arrays: Arrays, num_levels: int) -> None:
    """Raise ValueError for items that are not all among so many levels."""
    found = measure(arrays.items, sizes=arrays.sizes)
    if not (found.low >= 0 and found.high < num_levels and found.whole):
        raise ValueError(
            f"num_levels = {num_levels}: the data must be integers from 0 to {num_levels - 1}, "
            f"and {'run' if found.whole else 'are fractions'} from {found.low:g} to {found.high:g}"
        )
    if num_levels > 2**24:
        raise ValueError(f"num_levels = {num_levels}: needs at most {2**24}, or floats without levels")


def existing(path: str, key: str) -> Path:
    """The path, or a ValueError that names the key."""
    if not path:
        raise ValueError(f"{key} is empty: set it to where the data is")
    found = Path(expanded(path))
    if not found.exists():
        raise ValueError(f"{key} = {path} does not exist (looked in {Path.cwd()})")
    return found


def source_of(name: str, key: str = "dataset") -> Callable[..., Split]:
    """The function of a name in DATASETS, or of an import path, package.module:function, where that is annotated to
    return a ``Split`` and its arguments have defaults. Raises ValueError for any other."""
    found = component(DATASETS, key, name, _returns_split, "a function that is annotated to return sde.data.Split")
    for argument in inspect.signature(found).parameters.values():
        if argument.default is argument.empty and argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            raise ValueError(f"{key} = {name!r}: its argument {argument.name} needs a default")
    return found


def _returns_split(found: Any) -> bool:
    try:
        return inspect.isfunction(found) and get_type_hints(found).get("return") == Split
    except NameError:
        # An annotation in quotes that names nothing.
        return False


DATASETS: dict[str, Callable[..., Split]] = {"digits": digits, "mnist": mnist, "images": images, "points": points}
