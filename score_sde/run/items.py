"""Items of a trained run as modes take them: splits, the model bound to their labels, batches, files."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samplers.checks import SampleError
from samplers.progress import Progress
from score_sde.config.naming import with_flag
from score_sde.run.compiling import compiling
from score_sde.run.conditions import with_controls
from score_sde.run.folder import Run
from score_sde.run.guidance import GuidanceOptions
from score_sde.run.guides import Guides
from score_sde.run.labels import Labels
from score_sde.run.text import prompted, read_prompts
from sde import Denoiser, ScoreModel
from sde.condition.tree import (
    Condition,
    check_condition,
    is_control,
    labels_of,
    map_condition,
    null_tree,
    restrict_to,
)
from sde.data import Dataset
from sde.data.sizes import real_entries
from sde.data.statistics import spread
from sde.device import placed
from sde.files import write_whole
from sde.model.denoiser import Preconditioned
from sde.training.loss import BatchNoise


def relative_error(values: Tensor, x: Tensor, data: Dataset, sizes: Tensor | None = None) -> float:
    """Root mean square of values - x (n, *event) where they are real, relative to the data's standard deviation, both
    in units of the data's own transform; where the data are one value, it is not relative to anything."""
    index = spread(len(data), 10_000)
    std, encode = encoded_entries(data, index).std().item(), data.transform.outer.encode
    error = root_mean_square(encode(values) - encode(x), sizes).item()
    return error / std if std > 0 else error


def encoded_entries(data: Dataset, index: Tensor) -> Tensor:
    """The entries of items at positions that are real, in units of the data's own transform, in a row."""
    return real_entries(data.transform.outer.encode(data.batch(index)[0]).double(), data.sizes_of(index))


def encoded_items(
    data: Dataset, most: int, model: Denoiser, device: torch.device
) -> tuple[Tensor, Condition | None, Tensor | None]:
    """At most so many items spread over the set, in model units and on the device, as a model is trained on them: of a
    learned transform draws of its posteriors. With them what the model is told of them, and their sizes where they are
    padded."""
    index = spread(len(data), most)
    x, cond = data.batch(index)
    told = map_condition(lambda c: c.to(device), restrict_to(cond, model))
    draws = BatchNoise.draw(model.sde, (len(x), *data.inner_shape), torch.Generator().manual_seed(0))
    return draws.encode(data.transform.dequantize(x, 0.5), data.transform).to(device), told, data.sizes_of(index)


def root_mean_square(x: Tensor, sizes: Tensor | None = None) -> Tensor:
    """The root mean square over all entries of x (n, *event) that are real."""
    return real_entries(x.double(), sizes).square().mean().sqrt()


def open_split(run: Run, split: str, given: str | None = None, sampled: bool = False) -> tuple[Dataset, Dataset, Any]:
    """The items of a split, those of training, and the model that was trained on such data: a denoiser, or where it is
    ``sampled`` alone a student's flow map as well. Where the config names no data, and the items are ``given`` by a
    flag, sets without any that are like those of the model."""
    if split not in ("test", "train"):
        raise ValueError(f"--split={split}: needs test or train")
    denoiser = run.sampled_model() if sampled else run.model()
    if given and not run.names_data:
        none = Dataset(torch.empty(0, *run.event_shape), None, None, denoiser.transform, about={**run.about})
        return none, none, denoiser
    training, held_out = run.data()
    data = held_out if split == "test" else training
    if denoiser.transform.digest != data.transform.digest:
        raise ValueError(
            f"the model was trained with {denoiser.transform}, the data now come with {data.transform}: "
            "use the data of the training run"
        )
    return data, training, denoiser


def bind(
    run: Run,
    denoiser: Denoiser,
    labels: str | None,
    targets: Condition | None,
    count: int,
    guidance: GuidanceOptions,
    prompt: str | None = None,
    further: Condition | None = None,
) -> tuple[Tensor | None, Callable[[int], ScoreModel]]:
    """The labels (count,) that the flow is conditioned on, or None, and a function that binds so many rows to each.

    ``labels`` is the flag as ``Labels.of_items`` reads it, ``targets`` the items' own conditions, and ``further`` some
    of a mode's own, of ``count`` rows. With a ``prompt`` the condition is that, with the classes of the flag, or none,
    and what else the items come with.
    """
    guides = Guides(run, denoiser, guidance)
    asked = Labels(labels, denoiser, guides.classes, guides.names)
    given = guides.given_controls(count) | (further or {})
    if prompt:
        null = null_tree(torch.empty(count), None, guides.denoiser.conditions)
        without = {kind: c for kind, c in null.items() if run.pipeline or is_control(kind)}
        told: Condition | None = prompted_items(
            guides.denoiser, prompt, asked, without | (targets or {}) | given, count
        )
    else:
        told = asked.of_items(targets, count)
    cond = with_controls(guides.denoiser, told, given, count)
    # Rows of the bound model, so that what cycles over the items does so before they are repeated.
    whole = guides(cond)
    return labels_of(cond), lambda repeats: whole.rows(torch.arange(count).repeat_interleave(repeats))


def prompted_items(
    denoiser: Preconditioned, prompt: str, asked: Labels, targets: Condition | None, count: int
) -> Condition:
    """The condition of ``count`` items that are to be what ``--prompt`` says, cycled: classes as ``--labels`` asks, of
    the items themselves for "data", or none; all else as the items come with it."""
    own, found = restrict_to(targets, denoiser) or {}, null_tree(torch.empty(count), denoiser.num_classes, {})
    found |= {kind: c for kind, c in own.items() if kind != "labels" or asked.text == "data"}
    found |= prompted(denoiser, "--prompt", read_prompts("--prompt", prompt), count)
    if asked.text not in (None, "data"):
        found |= asked.of_samples(count) or {}
    with with_flag("--prompt", prompt):
        check_condition(restrict_to(found, denoiser) or {}, denoiser.num_classes, denoiser.conditions)
    return found


def batched(
    function: Callable, model: ScoreModel, x: Tensor, run: Run, batch_size: int, name: str, sizes: Tensor | None = None
) -> list:
    """function(model, part) of the parts of x (n, *event), with the rows of the model that belong to them; a dataclass
    of tensors, here on the CPU. Where there are ``sizes`` (n,) it takes those of the part as well. Several processes
    share the work, and each gets all of it."""
    results, world = [], run.world
    mine = world.rows(len(x))
    bar = Progress(total=mine.stop - mine.start, desc=name, unit="item", disable=not world.is_main)
    with bar, compiling(run, model, varying=True):
        for rows in world.batches(len(x), batch_size):
            try:
                own = {} if sizes is None else {"sizes": sizes[rows]}
                result = function(model.rows(rows), placed(x[rows], run.device), **own)
            except SampleError as error:
                raise error.renumbered(range(rows.start, rows.stop)) from None
            results.append(type(result)(*(value.cpu() for value in vars(result).values())))
            bar.update(rows.stop - rows.start)
    return world.all_gather_flat(results)


def joined(results: list, name: str) -> Tensor:
    """A field of all parts."""
    return torch.cat([getattr(result, name) for result in results])


def write_arrays(
    path: Path, arrays: Mapping[str, Tensor | np.ndarray | None], settings: dict[str, str] | None = None
) -> None:
    """An .npz of the arrays that are there, and of ``settings`` as JSON text, where what the command set is to go with
    them."""
    buffer = io.BytesIO()
    held: dict[str, Any] = {name: np.asarray(x) for name, x in arrays.items() if x is not None}
    if settings is not None:
        held["settings"] = np.array(json.dumps(settings))
    np.savez_compressed(buffer, **held)
    write_whole(path, buffer.getvalue())
