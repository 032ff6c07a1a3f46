"""Arrays in files: items (n, *event) of any shape, and the classes stored with them."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from sde.condition.tree import FEATURES
from sde.data.labels import class_labels, known_labels
from sde.data.statistics import feature_moments, measure
from sde.data.tables import read_table
from sde.rounding import FAR, far_from_zero

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
    """Items of an array that stays on disk, read on indexing by a tensor of positions; ``rows`` are its part of it, and
    floats come as ``floats``."""

    def __init__(self, array: np.ndarray, rows: np.ndarray | None = None, floats: torch.dtype = torch.float32) -> None:
        self.array, self.floats = array, floats
        self.rows = np.arange(len(array)) if rows is None else rows
        self.shape = torch.Size((len(self.rows), *array.shape[1:]))
        self.dtype = as_tensor(array[:0], floats).dtype

    def __getitem__(self, index: Tensor) -> Tensor:
        return as_tensor(self.array[self.rows[index.numpy()]], self.floats)

    def part(self, index: Tensor) -> "ArrayFile":
        """The items at some positions, still on disk."""
        return ArrayFile(self.array, self.rows[index.numpy()], self.floats)


def as_tensor(x: np.ndarray, floats: torch.dtype = torch.float32) -> Tensor:
    """Floats as ``floats``, integers in a type that torch has; in memory, whatever the byte order and strides."""
    if np.issubdtype(x.dtype, np.floating):
        kind: DTypeLike = np.float64 if floats == torch.float64 else np.float32
    else:
        kind = x.dtype.newbyteorder("=") if x.dtype.kind == "i" or x.dtype.itemsize == 1 else np.int64
    # What float32 cannot hold becomes infinite, and is refused as such.
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.require(x, kind, ["C", "W"]))


class Arrays(NamedTuple):
    """``items`` (n, *event) of a file, their ``labels`` (n,) or None, the other ``conditions`` (sde.condition) that
    were asked for, by kind, and the names of the ``classes`` and of the ``columns``, where they have some."""

    items: Tensor | ArrayFile
    labels: Tensor | None
    conditions: dict[str, Tensor]
    classes: list[str]
    columns: tuple[str, ...]


def open_array(path: Path, channels: str = "first", kinds: Sequence[str] = (), columns: Sequence[str] = ()) -> Arrays:
    """The arrays of a .npy, .npz or .csv file that is a data set.

    Of a .npz, the array "x", or the only one, holds the items. "labels" there, or the column "labels" of a .csv, has
    the classes, as ``class_labels`` reads them. "vector", "image" and "sequence" beside "x" are the conditions, of
    which those of ``kinds`` are taken. ``channels`` is a key of CHANNELS, and ``columns`` are those of a .csv to take.
    Floats come as float32, or as float64 where float32 would lose their digits. A .npy above IN_MEMORY stays on disk.
    Raises ValueError for damaged files, items that are not finite numbers, labels that are no classes, and conditions
    of another shape.
    """
    if channels not in CHANNELS:
        raise ValueError(f"channels = {channels!r}: needs one of {', '.join(CHANNELS)}")
    file = _read(path, columns, 0)
    x = _checked(path, file, channels)
    try:
        items = tensor_of(x)
        if isinstance(items, Tensor) and items.is_floating_point() and x.dtype.itemsize < 8:
            _warn_of_steps(path, items, x.dtype)
        labels, names = (None, []) if file.labels is None else class_labels(file.labels, len(x))
        held = file.others
        conditions = {kind: condition_array(kind, held[kind], len(x), channels) for kind in kinds if kind in held}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Arrays(items, labels, conditions, names, file.columns)


def read_array(
    path: Path,
    hidden: np.ndarray | None = None,
    columns: Sequence[str] = (),
    width: int = 0,
    classes: Sequence[str] = (),
) -> tuple[Tensor, Tensor | None]:
    """Items and labels of a file of items beside a data set, in memory.

    Entries that are ``hidden``, booleans (*event) or (n, *event), become 0, whatever they hold. A table has ``width``
    columns, those of the names ``columns`` where its first line names them. The names of ``classes`` are those that
    labels may have. Raises ValueError as ``open_array`` does.
    """
    file = _read(path, columns, width)
    x = _checked(path, file, "first", hidden)
    try:
        items = tensor_of(x, on_disk=False)
        labels = None if file.labels is None else known_labels(file.labels, len(x), classes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return items[torch.arange(items.shape[0])], labels


def _checked(path: Path, file: "_File", channels: str, hidden: np.ndarray | None = None) -> np.ndarray:
    """The items (n, *event) of a file, with 0 where they are hidden."""
    x = file.x
    if x.ndim < 2 or not len(x) or not x.size or x.dtype.kind not in "iuf":
        raise ValueError(
            f"{path} has shape {x.shape} and type {x.dtype}: needs numbers of shape (n, ...), one row per item"
        )
    x = CHANNELS[channels](x)
    if hidden is not None and hidden.shape in (x.shape, x.shape[1:]):
        x = np.where(hidden, x.dtype.type(0), x)
    if file.missing and np.isnan(x).any():
        raise ValueError(f"{path}: {file.missing}")
    return x


def tensor_of(x: np.ndarray, on_disk: bool = True) -> Tensor | ArrayFile:
    """Items x (n, *event) as they are held: floats in float64 where float32 would lose their digits. Raises ValueError
    for values that are not finite."""
    wide = ArrayFile(x, floats=torch.float64)
    floats = torch.float32
    found = measure(wide)
    if x.dtype.kind == "f" and x.dtype.itemsize > 4 and far_from_zero(*found.channels()):
        floats = torch.float64
    return ArrayFile(x, floats=floats) if on_disk and x.nbytes > IN_MEMORY and _mapped(x) else as_tensor(x, floats)


def _mapped(x: np.ndarray) -> bool:
    return isinstance(x, np.memmap)


def _warn_of_steps(path: Path, x: Tensor, kind: np.dtype) -> None:
    """Warn of floats that lost their digits before they were stored."""
    mean, std = measure(x).channels()
    step = np.finfo(kind).eps * mean.abs() / 2
    coarse = ((std > 0) & (step > 1e-2 * std)).nonzero().flatten().tolist()
    if coarse:
        at = coarse[0]
        warnings.warn(
            f"{path}: channel {at} is stored as {kind}, whose steps at {mean[at]:g} are about {2 * step[at]:.2g}, and "
            f"its standard deviation is {std[at]:.2g}: store it as float64",
            stacklevel=2,
        )


class _File(NamedTuple):
    """Items, labels and other arrays of a file as they are, the names of its columns, and what is missing in words."""

    x: np.ndarray
    labels: np.ndarray | None
    others: dict[str, np.ndarray]
    columns: tuple[str, ...] = ()
    missing: str = ""


def _read(path: Path, columns: Sequence[str], width: int) -> _File:
    """What a file holds, a .npy not yet read from the disk."""
    if path.suffix.lower() in (".csv", ".tsv"):
        table = read_table(path, LABELS, columns, width)
        return _File(table.values, table.labels, {}, table.columns, table.missing)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: needs a .npy, .npz or .csv file; dataset=images reads folders")
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
    return _File(x, labels[0] if labels else None, arrays)


def condition_array(kind: str, array: np.ndarray, count: int | None = None, channels: str = "first") -> Tensor:
    """A vector (n, d), an image (n, C, *space) or a sequence (n, L, d) as float32, or float64 where float32 would lose
    digits, with NaN for null; an image has its channels where ``channels``, a key of CHANNELS, says. Raises
    ValueError for another number of rows than ``count``, where that is given, for too few or too many axes, and for
    infinity."""
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
    found = as_tensor(array.astype(np.float64), torch.float64 if _loses_digits(kind, array) else torch.float32)
    infinite = found.isinf().flatten(1).any(1).nonzero().flatten().tolist()
    if infinite:
        raise ValueError(f"{len(infinite)} rows of the condition {kind!r} hold infinity (first: {infinite[0]})")
    return found


def _loses_digits(kind: str, array: np.ndarray) -> bool:
    """Whether float32 would be too coarse for a condition; of a few rows, whose spread says nothing, by their size."""
    if array.dtype.itemsize < 4 or array.dtype == np.float32:
        return False
    x = torch.from_numpy(array.astype(np.float64))
    mean, std = feature_moments([x.movedim(FEATURES[kind], -1)])
    return far_from_zero(mean, std) or bool(((x.abs() > FAR) & (x != x.float()) & ~x.isnan()).any())
