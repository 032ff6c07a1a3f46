"""Snapshots: averages as model files in a run folder, and averages of any length rebuilt from them."""

import re
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from sde.checkpoint.models import load_unmerged, read_description, save_model
from sde.checkpoint.tensors import open_tensors
from sde.checkpoint.tied import tied_names, untied
from sde.distributed.world import World
from sde.training.ema import Averages
from sde.training.ema_profile import Profile, combination, exponent
from sde.training.modes import trained_parameters

MAX_SNAPSHOTS = 32
"""Snapshots of a length that a run folder holds at most."""

DOUBTFUL_ERROR, MAX_ERROR = 0.1, 0.3
"""Relative errors of a rebuilt profile above which there is a warning, and a refusal."""


class Snapshot(NamedTuple):
    """The file of the power-function average of length ``relative_std`` after ``step`` updates."""

    path: Path
    relative_std: float
    step: int


def find_snapshots(folder: Path) -> list[Snapshot]:
    """The files power-<relative_std>-<step>.safetensors of a folder, by step."""
    names = [
        (re.fullmatch(r"power-([\d.]+(?:e-\d+)?)-(\d+)", path.stem), path) for path in folder.glob("*.safetensors")
    ]
    held = [Snapshot(path, float(name[1]), int(name[2])) for name, path in names if name]
    return sorted(held, key=lambda snapshot: (snapshot.step, snapshot.relative_std))


def save_averages(
    folder: Path, kind: str, spec: dict, averages: Averages, module: nn.Module, world: World | None = None
) -> None:
    """Write the extra averages of ``module`` as models of ``kind`` and ``spec`` (``sde.checkpoint.save_model``): a
    decay's to <decay>.safetensors, a power function's to power-<relative_std>-<step>.safetensors.

    Of each length at most MAX_SNAPSHOTS snapshots stay: of more, the one whose neighbors are nearest to each other
    goes, so that the steps stay about evenly spread. Those of later steps belong to what is done again, and go too. Of
    several processes every one must call this, and the first writes.
    """
    world = world or World()
    for name, average in averages.extra.items():
        file = f"{name}-{average.updates:08d}" if name in averages.powers else name
        save_model(folder / f"{file}.safetensors", kind, spec, average.module_state(module), world)
    world.broadcast_from_main(lambda: _thin(folder, averages.model_average.updates))


def _thin(folder: Path, now: int) -> None:
    held = find_snapshots(folder)
    for snapshot in held:
        if snapshot.step > now:
            snapshot.path.unlink()
    for length in {snapshot.relative_std for snapshot in held}:
        kept = [snapshot for snapshot in held if snapshot.relative_std == length and snapshot.step <= now]
        if len(kept) > MAX_SNAPSHOTS:
            crowded = min(range(1, len(kept) - 1), key=lambda i: kept[i + 1].step - kept[i - 1].step)
            kept[crowded].path.unlink()


def solve(held: Sequence[Snapshot], relative_std: float, step: int) -> tuple[np.ndarray, float]:
    """Weights (n,) of the snapshots for the average of length ``relative_std`` after ``step`` updates, and the relative
    error of its profile, of ``ema_profile.combination``. Raises ValueError where that is above MAX_ERROR, or the step
    is none of the run's."""
    if not held:
        raise ValueError("there are no snapshots to rebuild an average from: train with `power_ema_stds`")
    steps = {snapshot.step for snapshot in held}
    if not 0 < step <= max(steps):
        raise ValueError(f"step = {step}: needs one from 1 to {max(steps)}, that of the newest snapshot")
    profiles = [Profile(snapshot.step, exponent(snapshot.relative_std)) for snapshot in held]
    weights, error = combination(profiles, Profile(step, exponent(relative_std)))
    if error > MAX_ERROR:
        lengths = ", ".join(str(length) for length in sorted({snapshot.relative_std for snapshot in held}))
        near = min(steps, key=lambda other: abs(other - step))
        raise ValueError(
            f"relative_std = {relative_std} at step {step} cannot be rebuilt from snapshots of {lengths} at "
            f"{len(steps)} steps, its profile would be {error:.0%} off: ask for a length nearer to those"
            + (f", or for step {near}, which has snapshots" if near != step else "")
            + ", or train with a smaller `checkpoint_every`"
        )
    return weights, error


def reconstruct(
    held: Sequence[Snapshot],
    relative_std: float,
    step: int | None = None,
    kind: str = "denoiser",
    imports: Collection[str] = (),
) -> dict[str, Tensor]:
    """The state dict of the average that training would have kept with ``PowerEMA(module, relative_std)`` up to
    ``step``, by default the last, from snapshots of other lengths and steps; buffers are those of the nearest step.
    ``imports`` as in ``load_model``.

    Warns where the profile's relative error is above DOUBTFUL_ERROR. Raises ValueError as ``solve``, and for files that
    are damaged or of another network.
    """
    step = max((snapshot.step for snapshot in held), default=0) if step is None else step
    weights, error = solve(held, relative_std, step)
    if error > DOUBTFUL_ERROR:
        warnings.warn(
            f"relative_std = {relative_std}: the profile of the rebuilt average is {error:.0%} off; lengths nearer to "
            "those of the snapshots are better",
            UserWarning,
            stacklevel=2,
        )
    model = load_unmerged(min(held, key=lambda snapshot: abs(snapshot.step - step)).path, kind, imports)
    sums = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in trained_parameters(model).items()}
    for snapshot, weight in zip(held, weights.tolist(), strict=True):
        for total, part in zip(sums.values(), _read(snapshot.path, sums), strict=True):
            total.add_(part, alpha=weight)
    state = model.state_dict()
    averaged = {name: total.to(state[name].dtype) for name, total in sums.items()}
    return state | untied(averaged, tied_names(state))


def stored_spec(path: Path) -> dict:
    """What rebuilds the model of a file, as ``save_model`` took it."""
    return read_description(path)["spec"]


def _read(path: Path, like: dict[str, Tensor]) -> list[Tensor]:
    try:
        with open_tensors(path) as file:
            found = [file.get_tensor(name) for name in like]
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged, or of another network ({error}): remove it from the folder") from None
    if [part.shape for part in found] != [total.shape for total in like.values()]:
        raise ValueError(f"{path} is of another network than the other snapshots: remove it from the folder")
    return found
