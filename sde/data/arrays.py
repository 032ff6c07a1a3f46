"""Arrays in files: items (n, *event) of any shape, and the classes stored with them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sde.data.tables import read_table
from sde.statistics import Statistics, measure

IN_MEMORY = 2**31
"""Bytes up to which a set is held in memory; of a larger one, items are read when they are asked for."""

LABELS = ("labels", "label")
"""Names of the array, or of the column, that holds the classes."""

LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "channels_first": lambda x: x,
    "channels_last": lambda x: np.moveaxis(x, -1, 1),
    "no_channels": lambda x: x[:, None],
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
        kind = np.float32
    else:
        kind = x.dtype.newbyteorder("=") if x.dtype.kind == "i" or x.dtype.itemsize == 1 else np.int64
    # What float32 cannot hold becomes infinite, and is refused as such.
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.require(x, kind, ["C", "W"]))


def open_array(path: Path, layout: str = "channels_first") -> tuple[Tensor | ArrayFile, Tensor | None, Statistics]:
    """Items (n, *event), their labels (n,) or None, and the statistics of the items, of a .npy, .npz or .csv file.

    Of a .npz, the array "x", or the only one, holds the items; "labels" there, or the column "labels" of a .csv, the
    classes. ``layout`` is a key of LAYOUTS. A .npy above IN_MEMORY stays on disk. Raises ValueError for damaged files,
    items that are not finite numbers, and labels that are not one integer an item.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"config.data.layout = {layout!r}: needs one of {', '.join(LAYOUTS)}")
    x, labels = _read(path)
    if x.ndim < 2 or not len(x) or not x.size or x.dtype.kind not in "iuf":
        raise ValueError(
            f"{path} has shape {x.shape} and type {x.dtype}: needs numbers of shape (n, ...), one row an item"
        )
    x = LAYOUTS[layout](x)
    items = ArrayFile(x) if x.nbytes > IN_MEMORY and isinstance(x, np.memmap) else as_tensor(x)
    try:
        return items, None if labels is None else class_labels(labels, len(x)), measure(items)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_array(path: Path) -> tuple[Tensor, Tensor | None]:
    """Items and labels of ``open_array``, in memory."""
    items, labels, _ = open_array(path)
    return items[torch.arange(items.shape[0])], labels


def _read(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The arrays of a file as they are, a .npy not yet read from the disk."""
    if path.suffix.lower() in (".csv", ".tsv"):
        return read_table(path, LABELS)
    if path.is_dir():
        raise ValueError(
            f"{path} is a folder: needs a .npy, .npz or .csv file; config.data.dataset=images reads folders"
        )
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        arrays = dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"x": loaded}
    # numpy and zipfile raise many unrelated exceptions for damaged files.
    except Exception as error:
        raise ValueError(f"{path} is not a readable .npy, .npz or .csv file ({error})") from None
    labels = [arrays.pop(name) for name in LABELS if name in arrays]
    if "x" not in arrays and len(arrays) != 1:
        raise ValueError(f"{path} holds {', '.join(arrays) or 'nothing'}: name the data x")
    return arrays.get("x", next(iter(arrays.values()))), labels[0] if labels else None


def class_labels(labels: np.ndarray, count: int) -> Tensor:
    """Labels (n,) as int64. Raises ValueError unless they are ``count`` integers that number the classes from 0."""
    if labels.shape != (count,):
        remedy = ""
        if labels.ndim == 2 and len(labels) == count:
            remedy = ": flatten them" if labels.shape[1] == 1 else ": if they are one-hot, store their argmax"
        raise ValueError(f"the labels have shape {labels.shape}, needs ({count},), one integer an item{remedy}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"the labels have type {labels.dtype}: store the numbers of the classes, from 0, as integers")
    low, high = int(labels.min()), int(labels.max())
    if low:
        hint = " (are they 1-based?)" if low == 1 else ""
        raise ValueError(f"the labels run from {low} to {high}, but classes are numbered from 0{hint}: renumber them")
    if high >= count:
        raise ValueError(f"the labels run to {high} for {count} items: number the classes without gaps, from 0")
    return torch.from_numpy(labels.astype(np.int64))
