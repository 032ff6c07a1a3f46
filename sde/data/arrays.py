"""Arrays in files: items (n, *event) of any shape, and the classes, sizes and conditions stored with them."""

import difflib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sde.condition.tree import CONDITION_NOISE, CONTROL, FEATURES
from sde.data.array_files import CHANNELS, ArrayFile, FileOfArrays, array_tensor, read_file
from sde.data.captions import ARRAYS as CAPTIONS
from sde.data.captions import caption_array
from sde.data.labels import class_labels, known_labels
from sde.data.sizes import as_sizes, cut
from sde.data.statistics import Statistics, feature_moments, measure
from sde.rounding import FAR, far_from_zero

OWN_ARRAYS = ("seeds", "nfe", "index", "settings")
"""Arrays of one number per item, or text, that files of samples have."""

IN_MEMORY = 2**31
"""Bytes up to which a set is held in memory; of a larger one, items are read when they are asked for."""


class Arrays(NamedTuple):
    """``items`` (n, *event) of a file, their ``labels`` (n,) or None, the other ``conditions`` (sde.condition) that
    were asked for, by kind, the names of the ``classes`` and of the ``columns``, where they have some, of padded
    items the ``sizes`` (n,), or None, the numbers (n,) of their ``groups``, or None, and the ``captions``, where they
    were asked for."""

    items: Tensor | ArrayFile
    labels: Tensor | None
    conditions: dict[str, Tensor]
    classes: list[str]
    columns: tuple[str, ...]
    sizes: Tensor | None = None
    groups: Tensor | None = None
    captions: list[str] | None = None


def open_array(
    path: Path,
    channels: str = "first",
    kinds: Sequence[str] = (),
    columns: Sequence[str] = (),
    label_by: str = "",
    group_by: str = "",
) -> Arrays:
    """The arrays of a data set: a .npy, .npz or .csv file, or a folder of .npy files, each one item, of unequal sizes.

    Of a .npz, the array "x", or the only one that can be, holds the items. "labels" there, or the array of the name
    ``label_by``, or the column "labels" of a .csv, has the classes, as ``class_labels`` reads them; of numbers an array
    of the plural of that name has the names. Items for which the array ``group_by`` holds the same number or text are
    a group. "vector", "image", "sequence" and "control" beside "x" are the conditions, of which those of ``kinds`` are
    taken, where "text" stands for the array of captions; "sizes" (n,) says how much of each item is real
    (sde.data.sizes), and what else it holds becomes 0. ``channels`` is a key of CHANNELS, and ``columns`` are those of
    a .csv to take. Floats come as float32, or as float64 where float32 would lose their digits. A .npy above IN_MEMORY
    stays on disk. Raises
    ValueError for damaged files, items that are not finite numbers, labels that are no classes, and sizes and
    conditions of another shape.
    """
    if channels not in CHANNELS:
        raise ValueError(f"channels = {channels!r}: needs one of {', '.join(CHANNELS)}")
    file = read_file(path, channels, columns)
    x, held = _complete(path, file), file.others
    try:
        sizes = as_sizes(held.get("sizes"), x.shape)
        found = _measured(x, sizes)
        _warn_of_steps(path, found, x.dtype)
        on_disk, floats = x.nbytes > IN_MEMORY and isinstance(x, np.memmap), _floats(x, found)
        items = ArrayFile(x, floats=floats) if on_disk else cut(array_tensor(x, floats), sizes)
        own = beside(held, "label_by", label_by, len(x)) if label_by else file.labels
        labels, names = (None, []) if own is None else class_labels(own, len(x))
        names = names or _names_beside(held, label_by, labels)
        groups = beside(held, "group_by", group_by, len(x)) if group_by else None
        told = [kind for kind in FEATURES if kind in kinds and kind in held]
        conditions = {kind: condition_array(kind, held[kind], len(x), channels) for kind in told}
        texts = caption_array(held, len(x)) if "text" in kinds else None
        if labels is None:
            _warn_of_classes(path, held, len(x), group_by)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    numbers = None if groups is None else torch.from_numpy(np.unique(groups, return_inverse=True)[1])
    return Arrays(items, labels, conditions, names, file.columns, sizes, numbers, texts)


def beside(held: Mapping[str, np.ndarray], key: str, name: str, count: int) -> np.ndarray:
    """The array of a name, the value of an option ``key``, that has one number or text per item. Raises ValueError
    where there is none."""
    rows = {name: array for name, array in held.items() if array.shape == (count,) and array.dtype.kind in "biuSU"}
    if name not in rows:
        near = difflib.get_close_matches(name, rows, 1, 0.5)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(
            f"{key} = {name!r}: needs an array with an integer or a text for each of the {count} items, of which there "
            f"{'are' if len(rows) > 1 else 'is'} {', '.join(rows) or 'none'}{hint}"
        )
    return rows[name]


def _names_beside(held: Mapping[str, np.ndarray], label_by: str, labels: Tensor | None) -> list[str]:
    """The names of classes that are numbered in the array ``label_by``, of an array of texts that is called as several
    of them are; none where there is no such array, or one with fewer."""
    plurals = (f"{label_by}s", f"{label_by}es", f"{label_by[:-1]}ies", f"{label_by}_names") if label_by else ()
    found = [held[name] for name in plurals if name in held and held[name].dtype.kind == "U" and held[name].ndim == 1]
    classes = 0 if labels is None else int(labels.max()) + 1
    return found[0][:classes].tolist() if found and len(found[0]) >= classes else []


def read_array(
    path: Path,
    hidden: np.ndarray | None = None,
    columns: Sequence[str] = (),
    width: int = 0,
    classes: Sequence[str] = (),
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Items, labels and sizes of a file of items beside a data set, in memory.

    Entries that are ``hidden``, booleans (*event) or (n, *event), become 0, whatever they hold. A table has ``width``
    columns, those of the names ``columns`` where its first line names them. The names of ``classes`` are those that
    labels may have. Raises ValueError as ``open_array`` does.
    """
    file = read_file(path, columns=columns, width=width)
    x = _complete(path, file, hidden)
    try:
        sizes = as_sizes(file.others.get("sizes"), x.shape)
        items = cut(array_tensor(x, _floats(x, _measured(x, sizes))), sizes)
        labels = None if file.labels is None else known_labels(file.labels, len(x), classes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return items, labels, sizes


def _complete(path: Path, file: FileOfArrays, hidden: np.ndarray | None = None) -> np.ndarray:
    """The items (n, *event) of a file, with 0 where they are hidden. Raises ValueError for empty cells elsewhere."""
    x = file.x
    if hidden is not None and hidden.shape in (x.shape, x.shape[1:]):
        x = np.where(hidden, x.dtype.type(0), x)
    if file.missing and np.isnan(x).any():
        raise ValueError(f"{path}: {file.missing}")
    return x


def _measured(x: np.ndarray, sizes: Tensor | None) -> Statistics:
    """The statistics of what is real, with all digits. Raises ValueError for values that are not finite."""
    return measure(ArrayFile(x, floats=torch.float64), sizes=sizes)


def _floats(x: np.ndarray, found: Statistics) -> torch.dtype:
    """The type of items that are floats: float64 where float32 would lose their digits."""
    wide = x.dtype.kind == "f" and x.dtype.itemsize > 4 and far_from_zero(*found.channels())
    return torch.float64 if wide else torch.float32


def _warn_of_classes(path: Path, held: Mapping[str, np.ndarray], count: int, used: str) -> None:
    """Warn of arrays beside the items that may hold their classes under another name; one is ``used`` otherwise."""
    known = {*FEATURES, "sizes", *OWN_ARRAYS, *CAPTIONS, used}
    rows = [n for n, array in held.items() if array.shape == (count,) and array.dtype.kind in "biuUSO"]
    names = [name for name in rows if name not in known]
    if names:
        what = f"arrays {', '.join(names)} are" if len(names) > 1 else f"array {names[0]} is"
        one = "one" if len(names) > 1 else "it"
        warnings.warn(
            f"{path}: the {what} left out: if {one} holds the classes, name it labels, or set `label_by`", stacklevel=2
        )


def _warn_of_steps(path: Path, found: Statistics, kind: np.dtype) -> None:
    """Warn of floats that lost their digits before they were stored."""
    if kind.kind != "f" or kind.itemsize > 4:
        return
    mean, std = found.channels()
    step = np.finfo(kind).eps * mean.abs() / 2
    coarse = ((std > 0) & (step > 1e-2 * std)).nonzero().flatten().tolist()
    if coarse:
        at = coarse[0]
        warnings.warn(
            f"{path}: channel {at} is stored as {kind}, whose steps at {mean[at]:g} are about {2 * step[at]:.2g}, and "
            f"its standard deviation is {std[at]:.2g}: store it as float64",
            stacklevel=2,
        )


def condition_array(kind: str, array: np.ndarray, count: int | None = None, channels: str = "first") -> Tensor:
    """A vector (n, d), an image or control (n, C, *space), or a sequence (n, L, d), as float32, or as float64 where
    float32 would lose digits, with NaN for null; images and controls have their channels where ``channels``, a key of
    CHANNELS, says. Raises ValueError for another number of rows than ``count``, where that is given, for too few or too
    many axes, and for infinity."""
    if array.dtype.kind not in "iufb":
        raise ValueError(f"the condition {kind!r} has type {array.dtype}: needs numbers")
    if count is not None and array.shape[:1] != (count,):
        raise ValueError(f"the condition {kind!r} has shape {array.shape} for {count} items: needs one row per item")
    array = CHANNELS[channels](array) if kind in ("image", CONTROL) and array.ndim > 1 else array
    fits, form = {
        "vector": (array.ndim == 2, "(n, d)"),
        "image": (array.ndim > 2, "(n, channels, *space)"),
        "sequence": (array.ndim == 3, "(n, length, d)"),
        CONDITION_NOISE: (array.ndim == 2, "(n, 1)"),
        CONTROL: (array.ndim > 2, "(n, channels, *space)"),
    }[kind]
    if not fits or not array.size:
        raise ValueError(f"the condition {kind!r} has shape {array.shape}: needs {form}")
    found = array_tensor(array.astype(np.float64), torch.float64 if _loses_digits(kind, array) else torch.float32)
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
