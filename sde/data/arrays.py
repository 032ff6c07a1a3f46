"""Arrays in files: items (n, *event) of any shape, and the classes stored with them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from sde.data.sizes import check_sizes, cut, pad
from sde.data.statistics import Statistics, measure
from sde.data.tables import read_table

IN_MEMORY = 2**31
"""Bytes up to which a set is held in memory; of a larger one, items are read when they are asked for."""

LABELS = ("labels", "label")
"""Names of the array, or of the column, that holds the classes."""

CHANNELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "first": lambda x: x,
    "last": lambda x: np.moveaxis(x, -1, 1),
    "none": lambda x: x[:, None],
}
"""Where the items of a file (n, ...) have their channels; in memory they are the first axis of an item."""


class ArrayFile:
    """Items of an array that stays on disk, read on indexing by a tensor of positions; ``rows`` are its part of it."""

    def __init__(self, array: np.ndarray, rows: np.ndarray | None = None) -> None:
        self.array = array
        self.rows = np.arange(len(array)) if rows is None else rows
        self.shape = torch.Size((len(self.rows), *array.shape[1:]))
        self.dtype = as_tensor(array[:0]).dtype

    def __getitem__(self, index: Tensor) -> Tensor:
        return as_tensor(self.array[self.rows[index.numpy()]])

    def part(self, index: Tensor) -> "ArrayFile":
        """The items at some positions, still on disk."""
        return ArrayFile(self.array, self.rows[index.numpy()])


def as_tensor(x: np.ndarray) -> Tensor:
    """Floats as float32, integers in a type that torch has; in memory, whatever the byte order and strides."""
    if np.issubdtype(x.dtype, np.floating):
        kind: DTypeLike = np.float32
    else:
        kind = x.dtype.newbyteorder("=") if x.dtype.kind == "i" or x.dtype.itemsize == 1 else np.int64
    # What float32 cannot hold becomes infinite, and is refused as such.
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.require(x, kind, ["C", "W"]))


class Arrays(NamedTuple):
    """``items`` (n, *event) of a file, their ``labels`` (n,) or None, the ``statistics`` of the items, the other
    ``conditions`` (sde.condition) that were asked for, by kind, and of padded items the ``sizes`` (n,), or None."""

    items: Tensor | ArrayFile
    labels: Tensor | None
    statistics: Statistics
    conditions: dict[str, Tensor]
    sizes: Tensor | None = None


def open_array(
    path: Path, channels: str = "first", kinds: Sequence[str] = (), hidden: np.ndarray | None = None
) -> Arrays:
    """The arrays of a .npy, .npz or .csv file, or of a folder of .npy files, each one item, of unequal sizes.

    Of a .npz, the array "x", or the only one, holds the items. "labels" there, or the column "labels" of a .csv, has
    the classes. "vector", "image" and "sequence" beside "x" are the conditions, of which those of ``kinds`` are taken;
    "sizes" (n,) says how much of each item is real (sde.data.sizes), and what else it holds becomes 0. ``channels`` is
    a key of CHANNELS; entries of items that are ``hidden``, booleans (*event) or (n, *event), become 0, whatever they
    hold. A .npy above IN_MEMORY stays on disk. Raises ValueError for damaged files, items that are not
    finite numbers, labels that are not one integer per item, and conditions of another shape.
    """
    if channels not in CHANNELS:
        raise ValueError(f"channels = {channels!r}: needs one of {', '.join(CHANNELS)}")
    x, labels, others = _read_folder(path, channels) if path.is_dir() else _read(path)
    if x.ndim < 2 or not len(x) or not x.size or x.dtype.kind not in "iuf":
        raise ValueError(
            f"{path} has shape {x.shape} and type {x.dtype}: needs numbers of shape (n, ...), one row per item"
        )
    x = x if path.is_dir() else CHANNELS[channels](x)
    if hidden is not None and hidden.shape in (x.shape, x.shape[1:]):
        x = np.where(hidden, x.dtype.type(0), x)
    items = ArrayFile(x) if x.nbytes > IN_MEMORY and isinstance(x, np.memmap) else as_tensor(x)
    try:
        classes = None if labels is None else class_labels(labels, len(x))
        conditions = {kind: condition_array(kind, others[kind], len(x), channels) for kind in kinds if kind in others}
        sizes = as_sizes(others.get("sizes"), items.shape)
        if sizes is not None and isinstance(items, Tensor):
            items = cut(items, sizes)
        return Arrays(items, classes, measure(items, sizes=sizes), conditions, sizes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_array(path: Path, hidden: np.ndarray | None = None) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Items, labels and sizes of ``open_array``, in memory."""
    found = open_array(path, hidden=hidden)
    return found.items[torch.arange(found.items.shape[0], device="cpu")], found.labels, found.sizes


def array_of(path: Path, name: str) -> np.ndarray | None:
    """An array of a name beside the items of an .npz, or None."""
    return _read(path)[2].get(name)


def as_sizes(sizes: np.ndarray | None, shape: Sequence[int]) -> Tensor | None:
    """Sizes (n,) of items (n, *event) of a shape, or None. Raises ValueError for what are none."""
    if sizes is None:
        return None
    if sizes.dtype.kind not in "iu":
        raise ValueError(f"the sizes have type {sizes.dtype}: needs integers, how many entries of each item are real")
    found = torch.from_numpy(sizes.astype(np.int64))
    check_sizes(found, shape[0], shape[1:])
    return found


def _read_folder(path: Path, channels: str) -> tuple[np.ndarray, None, dict[str, np.ndarray]]:
    """The items in the .npy files of a folder, in the order of their names, with their channels first and padded where
    their sizes differ, and these."""
    files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".npy" and not file.name.startswith("."))
    if not files:
        raise ValueError(
            f"{path} is a folder without .npy files: needs one with an item in each, or a .npy, .npz or .csv file; "
            "dataset=images reads folders of images"
        )
    items = []
    for file in files:
        x = _read(file)[0]
        if not x.ndim or not x.size or x.dtype.kind not in "iuf":
            raise ValueError(f"{file} has shape {x.shape} and type {x.dtype}: needs the numbers of one item")
        items.append(as_tensor(CHANNELS[channels](x[None])[0] if x.ndim > 1 or channels == "none" else x))
    try:
        whole, sizes = pad(items)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}") from None
    unequal = any(item.shape != whole.shape[1:] for item in items)
    return whole.numpy(), None, {"sizes": sizes.numpy()} if unequal else {}


def _read(path: Path) -> tuple[np.ndarray, np.ndarray | None, dict[str, np.ndarray]]:
    """Items, labels and other arrays of a file as they are, a .npy not yet read from the disk."""
    if path.suffix.lower() in (".csv", ".tsv"):
        return *read_table(path, LABELS), {}
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        arrays = dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"x": loaded}
    # numpy and zipfile raise many unrelated exceptions for damaged files.
    except Exception as error:
        # Of any other file numpy says that it holds pickled objects, and may be loaded unsafely.
        reason = "it holds no arrays of numbers" if "pickle" in str(error) else error
        raise ValueError(f"{path} is not a readable .npy, .npz or .csv file ({reason})") from None
    labels = [arrays.pop(name) for name in LABELS if name in arrays]
    if "x" not in arrays and len(arrays) != 1:
        raise ValueError(f"{path} holds {', '.join(arrays) or 'nothing'}: name the data x")
    x = arrays.pop("x" if "x" in arrays else next(iter(arrays)))
    return x, labels[0] if labels else None, arrays


def class_labels(labels: np.ndarray, count: int) -> Tensor:
    """Labels (n,) as int64. Raises ValueError unless they are ``count`` integers that number the classes from 0."""
    if labels.shape != (count,):
        remedy = ""
        if labels.ndim == 2 and len(labels) == count:
            remedy = ": flatten them" if labels.shape[1] == 1 else ": if they are one-hot, store their argmax"
        raise ValueError(f"the labels have shape {labels.shape}, needs ({count},), one integer per item{remedy}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"the labels have type {labels.dtype}: store the numbers of the classes, from 0, as integers")
    low, high = int(labels.min()), int(labels.max())
    if low:
        hint = " (are they 1-based?)" if low == 1 else ""
        raise ValueError(f"the labels run from {low} to {high}, but classes are numbered from 0{hint}: renumber them")
    if high >= count:
        raise ValueError(f"the labels run to {high} for {count} items: number the classes without gaps, from 0")
    return torch.from_numpy(labels.astype(np.int64))


def condition_array(kind: str, array: np.ndarray, count: int | None = None, channels: str = "first") -> Tensor:
    """A vector (n, d), an image (n, C, *space) or a sequence (n, L, d) as float32, with NaN for null; an image has its
    channels where ``channels``, a key of CHANNELS, says. Raises ValueError for another number of rows than ``count``,
    where that is given, for too few or too many axes, and for infinity."""
    if array.dtype.kind not in "iufb":
        raise ValueError(f"the condition {kind!r} has type {array.dtype}: needs numbers")
    if count is not None and array.shape[:1] != (count,):
        raise ValueError(f"the condition {kind!r} has shape {array.shape} for {count} items: needs one row per item")
    array = CHANNELS[channels](array) if kind == "image" and array.ndim > 1 else array
    fits, form = {
        "vector": (array.ndim == 2, "(n, d)"),
        "image": (array.ndim > 2, "(n, channels, *space)"),
        "sequence": (array.ndim == 3, "(n, length, d)"),
    }[kind]
    if not fits or not array.size:
        raise ValueError(f"the condition {kind!r} has shape {array.shape}: needs {form}")
    found = as_tensor(array.astype(np.float32))
    infinite = found.isinf().flatten(1).any(1).nonzero().flatten().tolist()
    if infinite:
        raise ValueError(f"{len(infinite)} rows of the condition {kind!r} hold infinity (first: {infinite[0]})")
    return found
