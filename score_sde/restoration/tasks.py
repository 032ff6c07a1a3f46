"""Tasks of --mode restore: measurement operators by name, and what they make of items."""

import torch
from torch import Tensor

from samplers import SeededNoise
from samplers.noise.seeded import MEASUREMENT, item_seeds
from score_sde.config.config import pick
from score_sde.config.edge import naming
from score_sde.restoration.masks import read_mask
from score_sde.run.inputs import read_items
from sde.inverse.operators import Blur, CompressedSensing, Grayscale, LinearOperator, Mask, SuperResolution

TASKS = {
    "inpaint": ("mask", "left"),
    "superres": ("factor", 2),
    "deblur": ("blur_std", 1.5),
    "colorize": (None, None),
    "sensing": ("num_measurements", 20),
}
"""The flag of each task, and its default."""


def make_operator(
    task: str, shape: tuple[int, ...], options: dict[str, object], seed: int
) -> tuple[LinearOperator, str]:
    """The operator that ``--task`` measures items of a shape with, and the flags that say so.

    ``options`` are the values of the flags in TASKS, None where they were not given; ``seed`` is that of a random mask.
    Raises ValueError for a flag of another task, and for items that the operator does not fit.
    """
    flag, _ = TASKS[pick("--task", task, TASKS)]
    for name, value in options.items():
        if value is not None and name != flag:
            owner = next(other for other, (own, _) in TASKS.items() if own == name)
            raise ValueError(f"--{name}={value} is for --task={owner}: --task={task} would ignore it")
    value = _value(task, options)
    name = f"--task={task}" + (f" --{flag}={value}" if flag else "")
    if task in ("superres", "deblur", "colorize") and len(shape) not in (2, 3, 4):
        raise ValueError(
            f"{name} is for signals, images and volumes (channels, ...), and here are items of shape {shape}: take "
            "--task=inpaint or sensing"
        )
    if task == "colorize" and shape[0] == 1:
        raise ValueError(f"{name}: items of shape {shape} have one channel, so that there is no colour to restore")
    with naming(f"{name}: "):
        if task == "inpaint":
            operator = read_mask(value, shape, seed)
        elif task == "superres":
            operator = SuperResolution(value, len(shape) - 1)
        elif task == "deblur":
            operator = Blur.gaussian(value, len(shape) - 1)
        elif task == "colorize":
            operator = Grayscale() if shape[0] == 3 else Grayscale([1 / shape[0]] * shape[0])
        else:
            operator = CompressedSensing(shape, value)
        operator.rows(slice(0, 1))(torch.zeros(1, *shape))
    return operator, name


def _value(task: str, options: dict[str, object]) -> object:
    flag, default = TASKS[task]
    return default if options.get(flag) is None else options[flag]


def measure(operator: LinearOperator, x: Tensor, sigma_y: float, seed: int) -> Tensor:
    """y = A(x) + N(0, sigma_y^2 I) of items x (n, *event); the noise of item i depends on the seed and on i alone."""
    y = operator(x)
    return y + sigma_y * SeededNoise(item_seeds(seed, MEASUREMENT, len(x)))(y) if sigma_y else y


def read_measured(path: str, operator: LinearOperator, name: str, shape: tuple[int, ...], levels: int | None) -> Tensor:
    """The measurements y (n, *measurement) of ``--measurements_file``; of a mask, items whose hidden entries do not
    count."""
    masked = isinstance(operator, Mask)
    wanted, hidden = (shape, ~operator.mask) if masked else (tuple(operator(torch.zeros(1, *shape)).shape[1:]), None)
    y, _ = read_items(
        "--measurements_file", path, wanted, levels, f"what {name} measures has", whole=False, hidden=hidden
    )
    check_rows(operator, len(y), name)
    return operator(y) if masked else y


def check_rows(operator: LinearOperator, count: int, name: str) -> None:
    """Raise ValueError where the operator has masks for other than ``count`` items."""
    if isinstance(operator, Mask) and len(operator.index) not in (1, count):
        raise ValueError(
            f"{name} holds masks for {len(operator.index)} items, and there are {count}: give one per item"
        )


def visible(operator: LinearOperator, y: Tensor, event_dims: int) -> Tensor | None:
    """y as a picture can show it: of a mask an item with NaN where it is hidden; None where y has another shape than
    items have."""
    if isinstance(operator, Mask):
        return torch.where(operator.mask, operator.adjoint(y), torch.nan)
    return y if y.ndim == event_dims + 1 > 2 else None
