"""Files of arrays as they are: items that may stay on disk, classes, and what else lies beside them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from sde.condition.tree import FEATURES
from sde.data.sizes import pad
from sde.data.tables import read_table

LABELS = ("labels", "label")
"""Names of the array, or of the column, that holds the classes."""

CHANNELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "first": lambda x: x,
    "last": lambda x: np.moveaxis(x, -1, 1),
    "none": lambda x: x[:, None],
}
"""Where the items of a file (n, ...) have their channels; in memory they are the first axis of an item."""


class ArrayFile:
    """Items of an array that stays on disk, read on indexing by a tensor of positions; ``rows`` are its part of it, and
    floats come as ``floats``."""

    def __init__(self, array: np.ndarray, rows: np.ndarray | None = None, floats: torch.dtype = torch.float32) -> None:
        self.array, self.floats = array, floats
        self.rows = np.arange(len(array)) if rows is None else rows
        self.shape = torch.Size((len(self.rows), *array.shape[1:]))
        self.dtype = array_tensor(array[:0], floats).dtype

    def __getitem__(self, index: Tensor) -> Tensor:
        return array_tensor(self.array[self.rows[index.numpy()]], self.floats)

    def part(self, index: Tensor) -> "ArrayFile":
        """The items at some positions, still on disk."""
        return ArrayFile(self.array, self.rows[index.numpy()], self.floats)


def array_tensor(x: np.ndarray, floats: torch.dtype = torch.float32) -> Tensor:
    """Floats as ``floats``, integers in a type that torch has; in memory, whatever the byte order and strides."""
    if np.issubdtype(x.dtype, np.floating):
        kind: DTypeLike = np.float64 if floats == torch.float64 else np.float32
    else:
        kind = x.dtype.newbyteorder("=") if x.dtype.kind == "i" or x.dtype.itemsize == 1 else np.int64
    # What float32 cannot hold becomes infinite, and is refused as such.
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.require(x, kind, ["C", "W"]))


class FileOfArrays(NamedTuple):
    """Items ``x`` (n, *event), ``labels`` and ``others``, the arrays beside them, of the types of the file; the names
    of its ``columns``, and what is ``missing``, in words."""

    x: np.ndarray
    labels: np.ndarray | None
    others: dict[str, np.ndarray]
    columns: tuple[str, ...] = ()
    missing: str = ""


def read_file(path: Path, channels: str = "first", columns: Sequence[str] = (), width: int = 0) -> FileOfArrays:
    """What a .npy, .npz or .csv file or a folder of .npy files holds, a .npy not yet read from the disk.

    ``channels`` is a key of CHANNELS; ``columns`` and ``width`` are those of ``read_table``. Items of a folder are in
    the order of the files' names, and padded where their sizes differ: then "sizes" are among the others. Raises
    ValueError for damaged files, and for items that are not numbers of shape (n, *event).
    """
    if path.is_dir():
        return _of_folder(path, channels)
    if path.suffix.lower() in (".csv", ".tsv"):
        table = read_table(path, LABELS, columns, width)
        found = FileOfArrays(table.values, table.labels, {}, table.columns, table.missing)
    else:
        found = _of_numpy(path)
    x = found.x
    if x.ndim < 2 or not len(x) or not x.size or x.dtype.kind not in "iuf":
        raise ValueError(
            f"{path} has shape {x.shape} and type {x.dtype}: needs numbers of shape (n, ...), one row per item"
        )
    return found._replace(x=CHANNELS[channels](x))


def array_of(path: Path, name: str) -> np.ndarray | None:
    """An array of a name beside the items of a file, or None."""
    return read_file(path).others.get(name)


def _of_numpy(path: Path) -> FileOfArrays:
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        arrays = dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"x": loaded}
    # numpy and zipfile raise many unrelated exceptions for damaged files.
    except Exception as error:
        # Of any other file numpy says that it holds pickled objects, and may be loaded unsafely.
        reason: object = error
        if "pickle" in str(error):
            reason = "it holds no arrays of numbers; texts are stored with a type of their own, as by astype(str)"
        raise ValueError(f"{path} is not a readable .npy, .npz or .csv file ({reason})") from None
    labels = [arrays.pop(name) for name in LABELS if name in arrays]
    x = arrays.pop(_items_among(path, arrays))
    return FileOfArrays(x, labels[0] if labels else None, arrays)


def _items_among(path: Path, arrays: Mapping[str, np.ndarray]) -> str:
    """The name of the array that holds the items: x, or the only one, or the only one of numbers that has an axis
    beside that of the items and is no condition."""
    candidates = [*arrays]
    if "x" in candidates:
        return "x"
    if len(candidates) > 1:
        candidates = [n for n, a in arrays.items() if a.ndim > 1 and a.dtype.kind in "iuf" and n not in FEATURES]
    if len(candidates) != 1:
        raise ValueError(f"{path} holds {', '.join(arrays) or 'nothing'}: name the data x")
    return candidates[0]


def _of_folder(path: Path, channels: str) -> FileOfArrays:
    files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".npy" and not file.name.startswith("."))
    if not files:
        raise ValueError(
            f"{path} is a folder without .npy files: needs one with an item in each, or a .npy, .npz or .csv file; "
            "dataset=images reads folders of images"
        )
    items = []
    for file in files:
        x = _of_numpy(file).x
        if not x.ndim or not x.size or x.dtype.kind not in "iuf":
            raise ValueError(f"{file} has shape {x.shape} and type {x.dtype}: needs the numbers of one item")
        items.append(CHANNELS[channels](x[None])[0] if x.ndim > 1 or channels == "none" else x)
    # One type that holds the numbers of all.
    kind = np.result_type(*(x.dtype for x in items))
    try:
        whole, sizes = pad([array_tensor(x.astype(kind), torch.float64) for x in items])
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}") from None
    unequal = any(x.shape != whole.shape[1:] for x in items)
    return FileOfArrays(whole.numpy().astype(kind, copy=False), None, {"sizes": sizes.numpy()} if unequal else {})
