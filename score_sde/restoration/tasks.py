"""Tasks of --mode restore: measurement operators by name, and what they make of items."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from samplers import SeededNoise
from samplers.noise.seeded import MEASUREMENT, item_seeds
from samplers.padding import real_counts
from score_sde.config.config import pick
from score_sde.config.naming import with_flag, with_words
from score_sde.kinds.base import Kind
from score_sde.restoration.masks import read_mask
from score_sde.run.inputs import read_items
from sde.data import Dataset, existing
from sde.data.array_files import array_of
from sde.data.sizes import as_sizes, real, real_entries
from sde.inverse.operators import LinearOperator, Mask, OfReal

TASKS: dict[str, tuple[str | None, Any]] = {
    "inpaint": ("mask", "left"),
    "superres": ("factor", 2),
    "deblur": ("blur_std", 1.5),
    "colorize": (None, None),
    "sensing": ("num_measurements", 20),
}
"""The flag of each task, and its default; a task that only some kind of data names has none."""


def make_operator(
    task: str, shape: tuple[int, ...], options: Mapping[str, Any], seed: int, kind: Kind, sizes: Tensor | None = None
) -> tuple[LinearOperator, str]:
    """The operator that ``--task`` measures items of a shape and a kind with, and the flags that say so.

    ``options`` are the values of the flags in TASKS, None where they were not given; ``seed`` is that of a random mask.
    Of items of these ``sizes`` (n,) what is real is measured, and a word for a mask is meant of it. Raises ValueError
    for a flag of another task, and for items that the operator does not fit.
    """
    pick("--task", task, {**TASKS, **kind.tasks})
    flag, _ = TASKS.get(task, (None, None))
    for name, value in options.items():
        if value is not None and name != flag:
            owner = next(other for other, (own, _) in TASKS.items() if own == name)
            raise ValueError(f"--{name}={value} is for --task={owner}: --task={task} would ignore it")
    value = _value(task, options)
    name = f"--task={task}" + (f" --{flag}={value}" if flag else "")
    if task != "inpaint" and task not in kind.tasks:
        raise ValueError(
            f"{name} is for signals, images and volumes (channels, ...), and here are items of shape {shape}: take "
            f"--task=inpaint or {' or '.join(kind.tasks)}"
        )
    with with_words(name):
        operator: LinearOperator
        if task == "inpaint":
            operator = read_mask(value, shape, seed, kind.masks, sizes)
        else:
            operator = kind.tasks[task](shape, value)
            operator = operator if sizes is None else OfReal(operator, real(sizes, shape))
        operator.rows(slice(0, 1))(torch.zeros(1, *shape))
    return operator, name


def _value(task: str, options: Mapping[str, Any]) -> Any:
    flag, default = TASKS.get(task, (None, None))
    value = None if flag is None else options.get(flag)
    return default if value is None else value


def measure(operator: LinearOperator, x: Tensor, sigma_y: float, seed: int) -> Tensor:
    """y = A(x) + N(0, sigma_y^2 I) of items x (n, *event); the noise of item i depends on the seed and on i alone."""
    y = operator(x)
    if not sigma_y:
        return y
    noisy = y + sigma_y * SeededNoise(item_seeds(seed, MEASUREMENT, len(x)))(y)
    # Of items whose masks observe less than others', the rest of a row is no measurement.
    return operator(operator.adjoint(noisy)) if isinstance(operator, Mask) else noisy


def read_measured(path: str, operator: LinearOperator, name: str, data: Dataset, kind: Kind) -> Tensor:
    """The measurements y (n, *measurement) of ``--measurements_file``, of a mask items where hidden ones are void."""
    hidden = ~operator.mask if isinstance(operator, Mask) else None
    shape, transform = data.event_shape, data.transform
    wanted = tuple(operator(torch.zeros(1, *shape)).shape[1:]) if hidden is None else shape
    y, _, _ = read_items(
        "--measurements_file", path, wanted, transform.num_levels, kind, f"what {name} measures has", whole=False,
        hidden=hidden, dtype=transform.dtype,
    )  # fmt: skip
    check_rows(operator, len(y), name)
    return y if hidden is None else operator(y)


def measured_sizes(file: str, task: str, data: Dataset) -> Tensor | None:
    """The sizes of items that a mask observed, the array "sizes" of an .npz. Raises ValueError where the items of the
    data are of unequal size, and the file does not say theirs."""
    if data.sizes is None:
        return None
    sizes = array_of(existing(file, "--measurements_file"), "sizes") if task == "inpaint" else None
    if sizes is None:
        raise ValueError(
            f"--measurements_file={file}: the items are of unequal size, which a measurement does not tell; take "
            "--task=inpaint with an .npz that has their sizes beside x, or --input"
        )
    with with_flag("--measurements_file", file):
        return as_sizes(sizes, (len(sizes), *data.event_shape))


def hides_nothing(operator: Mask, sizes: Tensor | None) -> bool:
    """Whether all that is real is observed."""
    return bool(real_entries(operator.mask, sizes).all())


def observed(operator: LinearOperator, y: Tensor, shape: tuple[int, ...], sizes: Tensor | None) -> float:
    """Measured values for each entry of an item that is real."""
    entries = math.prod(shape) if sizes is None else real_counts(sizes, shape).mean().item()
    if isinstance(operator, Mask):
        return operator.mask.double().mean().item() * math.prod(shape) / entries
    return y[0].numel() / entries


def miss(operator: LinearOperator, x: Tensor, y: Tensor) -> float:
    """The root mean square of A(x) - y over all that was measured."""
    return measured_values(operator, operator(x) - y).square().mean().sqrt().item()


def measured_values(operator: LinearOperator, y: Tensor) -> Tensor:
    """All values of y in a row, in float64, less those that end the rows of masks that observe less than others."""
    y = y[operator.filled.expand_as(y)] if isinstance(operator, Mask) else y.flatten()
    return y.double()


def check_rows(operator: LinearOperator, count: int, name: str) -> None:
    """Raise ValueError where the operator has masks for other than ``count`` items."""
    if isinstance(operator, Mask) and len(operator.index) not in (1, count):
        raise ValueError(
            f"{name} holds masks for {len(operator.index)} items, and there are {count}: give one per item"
        )


def visible(operator: LinearOperator, y: Tensor, kind: Kind) -> Tensor | None:
    """y as a picture can show it: of a mask an item with NaN where it is hidden; None where y is no item of the kind,
    or one of numbers without a place."""
    if isinstance(operator, Mask):
        return torch.where(operator.mask, operator.adjoint(y), torch.nan)
    return y if kind.channels and kind.fits(tuple(y.shape[1:])) else None
