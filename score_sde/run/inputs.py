"""Inputs of a mode: items of a split, or a user's own in a file, and the readers of lists in flags."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from samplers import GRIDS
from score_sde.config.config import pick
from score_sde.config.naming import with_flag
from score_sde.kinds import reader
from score_sde.kinds.base import About, Kind
from score_sde.run.folder import event_shape_of
from sde.condition.tree import Condition, labels_of
from sde.data import Dataset, existing
from sde.data.arrays import read_array
from sde.data.names import CLASS_NAMES
from sde.data.sizes import pad
from sde.data.statistics import spread
from sde.model.denoiser import Preconditioned

DEFAULT_ITEMS = 8
"""Items spread over the split unless a flag says otherwise."""


@dataclass(frozen=True)
class Inputs:
    """Items ``x`` (n, *event) in data units, with what the data say of each, ``cond``, or None.

    ``index`` (n,) has their positions in the split, or is None; ``source`` names the split or file that they are from.
    ``sizes`` (n,) say how much of each is real, None where all is.
    """

    x: Tensor
    cond: Condition | None
    index: Tensor | None
    source: str
    sizes: Tensor | None = None

    @property
    def labels(self) -> Tensor | None:
        """Their classes (n,), where they have any."""
        return labels_of(self.cond)


def open_inputs(
    data: Dataset, split: str, items: str | None, num_samples: int | None, file: str | None, kind: Kind
) -> Inputs:
    """The items of ``--items``, those of ``--input``, or ``--num_samples`` of them spread over the split."""
    only_one({"items": items, "num_samples": num_samples, "input": file})
    if file:
        x, labels, sizes = read_like("--input", file, data, kind)
        return Inputs(x, None if labels is None else {"labels": labels}, None, Path(file).stem, sizes)
    if items:
        index = torch.tensor(read_numbers("--items", items, len(data), "numbers of items, as in 0,1,2"))
    else:
        index = spread_items(data, split, num_samples or DEFAULT_ITEMS)
    x, cond = data.batch(index)
    return Inputs(x, cond, index, split, data.sizes_of(index))


def spread_items(data: Dataset, split: str, num_samples: int) -> Tensor:
    """The positions of ``--num_samples`` items spread over the split; of all items, and a line that says so, where it
    has fewer."""
    if len(data) < num_samples:
        print(f"the {split} split has {len(data)} items, fewer than --num_samples={num_samples}: taking all of them")
    return spread(len(data), num_samples)


def read_grid(grid: str | None) -> str | torch.Tensor | None:
    """``--grid``: the name of a grid, with a number behind a colon or without, times, or None for the sampler's own."""
    if not grid or "," not in grid:
        if grid:
            pick("--grid", grid.partition(":")[0], GRIDS)
        return grid
    times = read_floats("--grid", grid, "decreasing times, as in 1,0.5,0.1,0.001, or a grid's name")
    return torch.tensor(times, dtype=torch.float64)


def only_one(flags: dict[str, object]) -> None:
    """Raise ValueError where more than one of these flags, each of which says which items to take, was given."""
    given = [f"--{name}={value}" for name, value in flags.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)}: each says which items to take; choose one")


def read_names(flag: str, text: str, allowed: Iterable[str]) -> list[str]:
    """Names with commas between them, each once. Raises ValueError for one that is not allowed."""
    return [*dict.fromkeys(pick(flag, name.strip(), allowed) for name in text.split(","))]


def read_floats(flag: str, text: str, form: str) -> list[float]:
    """Numbers with commas between them; ``form`` says what they are, with an example."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{flag}={text}: needs {form}") from None


def read_numbers(flag: str, text: str, limit: int, form: str, first: int = 0) -> list[int]:
    """Numbers from ``first`` to below the limit with commas between them; ``form`` says what they are, with an
    example."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{flag}={text}: needs {form}") from None
    for number in numbers:
        if not first <= number < limit:
            raise ValueError(f"{flag}={text}: {number} is out of range, allowed are {first} to {limit - 1}")
    return numbers


def read_like(flag: str, path: str, data: Dataset, kind: Kind) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The items of a file, as ``read_items``, that are to be like those of a data set."""
    return read_items(
        flag, path, data.event_shape, data.transform.num_levels, kind, about=data.about, dtype=data.transform.dtype,
        unequal=data.sizes is not None,
    )  # fmt: skip


def read_items(
    flag: str,
    path: str,
    shape: tuple[int, ...],
    levels: int | None,
    kind: Kind,
    owner: str = "the data's",
    whole: bool = True,
    hidden: Tensor | None = None,
    about: About | None = None,
    dtype: torch.dtype = torch.float32,
    unequal: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Items (n, *shape) in data units as ``dtype``, and their classes (n,) and sizes (n,) where the file holds them.

    The file is a .npy, .npz or .csv file, or one of the ``kind`` of data or of another kind, which holds a single item.

    With ``whole``, items of data with ``levels`` are integers; ``owner`` is whose shape it is, and ``about`` are the
    values of the data that a kind's files are read by. What is ``hidden``, booleans (*shape) or (n, *shape), may hold
    anything, as NaN, and is read as 0 from arrays. Items of ``unequal`` sizes may be smaller than the shape, which they
    are then padded to. Raises ValueError for items of another shape, or with values that the data cannot have.
    """
    file = existing(path, flag)
    its = reader(file, kind)
    labels = sizes = None
    if its:
        x = its.read(file, shape, levels, about or {}, flag)
        x = x.round() if whole and levels else x
    else:
        about = about or {}
        columns, classes = about.get("columns", ()), about.get(CLASS_NAMES, ())
        width = shape[0] if len(shape) == 1 else 0
        x, labels, sizes = read_array(file, None if hidden is None else hidden.numpy(), columns, width, classes)
    if unequal:
        x, sizes = _padded(flag, path, x, sizes, shape)
    if tuple(x.shape[1:]) != shape:
        raise ValueError(f"{flag}={path}: its items have shape {tuple(x.shape[1:])}, {owner} {shape}")
    if levels and whole and (x.min() < 0 or x.max() >= levels or (x != x.round()).any()):
        raise ValueError(f"{flag}={path}: needs integers from 0 to {levels - 1}, like the data")
    return x.to(dtype), labels, sizes


def read_states(path: str, denoiser: Preconditioned) -> Tensor:
    """``--start_state``: states (n, *inner) in model units, taken as they are."""
    x, _, _ = read_array(existing(path, "--start_state"))
    inner = denoiser.transform.inner_shape(event_shape_of(denoiser))
    if tuple(x.shape[1:]) != inner:
        raise ValueError(
            f"--start_state={path}: its states have shape {tuple(x.shape[1:])}, those of the model {inner}"
        )
    return x.float()


def _padded(
    flag: str, path: str, x: Tensor, sizes: Tensor | None, shape: tuple[int, ...]
) -> tuple[Tensor, Tensor | None]:
    """Items of unequal size in the shape of all, and their sizes: those of the file, or else the one that they have."""
    if x.ndim == len(shape) + 1 and (len(shape) == 1 or x.shape[1] == shape[0]):
        with with_flag(flag, path):
            x, own = pad(list(x), shape)
        sizes = own if sizes is None else sizes
    return x, sizes
