"""Conditions of samples: labels, arrays in a file, held-out items, or the samples of another run."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from score_sde.config.config import read_run_config, resolve
from score_sde.config.naming import with_flag, with_words
from score_sde.kinds.base import Kind
from score_sde.plots.pictures import comparison, picture
from score_sde.run.folder import Run
from score_sde.run.guides import UNGUIDED, Guides
from score_sde.run.labels import Labels
from score_sde.run.text import cycled_prompts, prompted, read_prompts
from sde.condition.tree import (
    CONTROL,
    NULL_LABEL,
    C,
    Condition,
    check_condition,
    condition_kinds,
    is_control,
    labels_of,
    map_condition,
    null_tree,
    restrict_to,
)
from sde.data import Dataset, existing
from sde.data.arrays import condition_array
from sde.data.labels import known_labels
from sde.data.statistics import spread
from sde.model.denoiser import Preconditioned
from sde.networks.embedding import repeat_to


def cycled(cond: C, count: int) -> C:
    """``count`` rows of a condition, the first ones again behind the last."""
    return map_condition(lambda c: c[torch.arange(count) % len(c)], cond)


def held_out_condition(data: Dataset, model: Preconditioned, count: int) -> Condition | None:
    """What a model is conditioned on, ``count`` rows: classes by the law of the data, or where there is more, the
    conditions of items spread over the data."""
    if not model.conditions:
        usual = "data" if model.num_classes else None
        return Labels(usual, model, model.num_classes, counts=data.class_counts).of_samples(count)
    _, cond = data.batch(spread(len(data), count))
    return restrict_to(cycled(cond, count), model)


def read_condition(
    run: Run,
    guides: Guides,
    labels: str | None,
    file: str | None,
    count: int,
    *,
    prompt: str | None = None,
    seed: int = 0,
    by_law: bool = False,
) -> Condition | None:
    """``--labels``, ``--condition`` and ``--prompt``, one row for each of ``count`` samples: the prompts and the arrays
    of the file, cycled, or by default, for models that are conditioned on more than classes, held-out items. Classes
    that are not told are drawn ``by_law``, as often as the data have them and by ``seed``, or else are all of them in
    turn; beside a prompt they are none. Raises ValueError for what the model does not take."""
    model, controls = guides.denoiser, guides.given_controls(count)
    usual = "data" if by_law and guides.classes else None
    labeled = labels or usual
    asked = Labels(labeled, model, guides.classes, guides.names, run.class_counts if labeled == "data" else None)
    own = [kind for kind in model.conditions if not is_control(kind)]
    # Controls that are not given are those of held-out items.
    awaited = None if controls else guides.controls
    told = prompted(model, "--prompt", read_prompts("--prompt", prompt), count) if prompt else {}
    if told and (file == "none" or not file):
        # Else none of the classes, since a prompt says it all.
        classes = asked.of_samples(count, seed) if labels else None
        found = told | (classes or (_no_labels(count) if model.num_classes else {}))
        if awaited and not run.pipeline:
            taken = held_out_condition(awaited.held_out(run.data()[1]), model, count) or {}
            controls = {kind: c for kind, c in taken.items() if is_control(kind)}
        found = with_controls(model, found, controls, count) or {}
        if run.pipeline:
            found = null_tree(torch.empty(count), None, model.conditions) | found
        with with_flag("--prompt", prompt):
            check_condition(found, model.num_classes, model.conditions)
        return found
    if not (file or own or awaited):
        return with_controls(model, asked.of_samples(count, seed), controls, count)
    if labels and awaited and not (file or own):
        return of_classes(awaited.held_out(run.data()[1]), model, asked.of_samples(count, seed), count)
    if labels and (file == "none" or not file):
        others = " and ".join(own or model.conditions)
        raise ValueError(
            f"--labels={labels}: the model is conditioned on {others} as well, and held-out items have classes of "
            "their own; add --condition=FILE.npz or --cascade, or leave the labels out"
        )
    if file == "none" or (run.pipeline and not file):
        return with_controls(model, None, controls, count)
    if not file:
        held_out = run.data()[1]
        held_out = held_out if awaited is None else awaited.held_out(held_out)
        return with_controls(model, held_out_condition(held_out, model, count), controls, count)
    if not condition_kinds(model):
        raise ValueError(f"--condition={file}: the model is unconditional; leave it out")
    given = _read(file, model, guides.names)
    if labels and "labels" in given:
        raise ValueError(f"--labels={labels} and --condition={file} both give labels: choose one")
    twice = [kind for kind in told if kind in given]
    if twice:
        raise ValueError(f"--prompt={prompt} and --condition={file} both give the {twice[0]}: choose one")
    beside: Condition = dict(told)
    if guides.classes and "labels" not in given:
        beside |= asked.of_samples(count, seed) or _no_labels(count)
    if twice := [kind for kind in controls if kind in given]:
        raise ValueError(f"--control={guides.options.control} and --condition={file} both give {twice[0]}: choose one")
    with with_flag("--condition", file):
        told = given | cycled(beside, 1) | {kind: c[:1] for kind, c in controls.items()}
        check_condition(restrict_to(told, model) or {}, model.num_classes, model.conditions)
    return cycled(given, count) | beside | controls


def with_controls(model: Preconditioned, cond: Condition | None, controls: Condition, count: int) -> Condition | None:
    """The condition with controls of ``count`` rows in the place of its own, and null for what neither has; as it is
    where the model takes none, and none at all where nothing is said."""
    if not controls and (cond is None or not any(map(is_control, model.conditions))):
        return cond
    told = null_tree(torch.empty(count), model.num_classes, model.conditions)
    return told | (cond or {}) | controls


def of_classes(data: Dataset, model: Preconditioned, cond: Condition | None, count: int) -> Condition | None:
    """The controls of items of the classes that a condition asks for, those of a class one after the other, and its
    labels; of any items where it asks for none, or they have no classes."""
    labels = labels_of(cond)
    if labels is None or data.labels is None:
        found = held_out_condition(data, model, count)
        return restrict_to((found or {}) | (_no_labels(count) if labels is None else {"labels": labels}), model)
    positions, taken = [], dict.fromkeys(labels.tolist(), 0)
    for label in labels.tolist():
        own = (data.labels == label).nonzero()[:, 0]
        if not len(own):
            raise ValueError(
                f"--labels: no held-out item is of class {label}, whose control could be taken: give --control"
            )
        positions.append(int(own[taken[label] % len(own)]))
        taken[label] += 1
    _, found = data.batch(torch.tensor(positions))
    return restrict_to((found or {}) | {"labels": labels}, model)


def prompts_of(run: Run, model: Preconditioned, prompt: str | None, file: str | None, count: int) -> list[str] | None:
    """The texts of what ``read_condition`` returns, one for each of ``count`` samples: prompts, or by default the
    captions of held-out items; None where it has none."""
    # A model of one's own need not say whether it reads.
    if getattr(model, "text", None) is None or ((file or run.pipeline) and not prompt):
        return None
    if prompt:
        return cycled_prompts(read_prompts("--prompt", prompt), count)
    held_out = run.data()[1]
    if held_out.captions is None:
        return None
    return cycled_prompts([held_out.captions[i] for i in spread(len(held_out), count).tolist()], count)


def _no_labels(count: int) -> Condition:
    return {"labels": torch.full((count,), NULL_LABEL)}


def _read(file: str, model: Preconditioned, names: Sequence[str]) -> Condition:
    """The arrays of an .npz by kind, as many rows each."""
    takes, flag = condition_kinds(model), f"--condition={file}"
    try:
        with np.load(existing(file, "--condition"), allow_pickle=False) as arrays:
            arrays = dict(arrays)
    # numpy and zipfile raise many unrelated exceptions for damaged files.
    except (OSError, TypeError, AttributeError, EOFError, ValueError) as error:
        raise ValueError(f"{flag} is not a readable .npz of arrays named {', '.join(takes)} ({error})") from None
    for name in arrays:
        if name not in takes:
            raise ValueError(
                f"{flag} holds {name!r}, but the model is conditioned on {' and '.join(takes)}: take it out"
            )
    rows = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(rows.values())) != 1 or not all(rows.values()):
        counts = ", ".join(f"{name} {count}" for name, count in rows.items()) or "no arrays"
        raise ValueError(f"{flag} has rows: {counts}; needs as many in each, and one at least")
    tree = {}
    for name, array in arrays.items():
        with with_words(flag):
            if name == "labels":
                tree[name] = known_labels(array, len(array), names)
            else:
                tree[name] = condition_array(name, array)
    return tree


def open_cascade(run: Run, folder: str, model: Preconditioned) -> Guides:
    """The model of ``--cascade``, whose samples are the images that this run's model is conditioned on; it is sampled
    as this run is. Raises ValueError where the two do not fit."""
    flag, wanted = f"--cascade={folder}", model.conditions.get("image")
    if wanted is None:
        others = " and ".join(condition_kinds(model)) or "nothing"
        raise ValueError(f"{flag}: the model in {run.folder} is conditioned on {others}, not on an image; leave it out")
    path = Path(folder)
    if not (path / "config.json").exists():
        raise ValueError(f"{flag} is not a run folder: name one that draws images of shape {tuple(wanted)}")
    config = replace(resolve(read_run_config(path), []), sampler=run.config.sampler)
    low = Run(path, config, run.device, run.world, imports=run.imports)
    drawn = low.model()
    if drawn.event_shape != tuple(wanted):
        raise ValueError(
            f"{flag} draws items of shape {drawn.event_shape}, but {run.folder} is conditioned on images of "
            f"shape {tuple(wanted)}: train one for the other, by config.data.downsample or config.data.superres_factor"
        )
    if run.sizes or low.sizes:
        raise ValueError(
            f"{flag}: the items are of unequal size, and the two stages would draw sizes of their own; draw the first "
            "by itself, and give its samples by --condition"
        )
    if drawn.conditions:
        raise ValueError(
            f"{flag} is itself conditioned on {' and '.join(drawn.conditions)}: name the run of a first stage"
        )
    if drawn.num_classes and model.num_classes and drawn.num_classes != model.num_classes:
        raise ValueError(
            f"{flag} has {drawn.num_classes} classes, {run.folder} has {model.num_classes}: labels mean the same to "
            "both only where they come from the same data"
        )
    return Guides(low, drawn, UNGUIDED)


def cascade_seed(seed: int) -> int:
    """The seed of the first stage, other than the second's, whose first noise would be the same numbers."""
    return int(np.random.SeedSequence([seed, 1]).generate_state(1)[0] >> 1)


def upscaled(labels: Condition | None, image: Tensor, guides: Guides) -> Condition:
    """The condition of a cascade's second stage, checked."""
    model, cond = guides.denoiser, {"image": image if image.is_floating_point() else image.float()}
    if guides.classes:
        cond |= labels or _no_labels(len(image))
    cond = with_controls(model, cond, guides.given_controls(len(image)), len(image)) or cond
    check_condition(restrict_to(cond, model) or {}, model.num_classes, model.conditions)
    return cond


def _as_image(control: Tensor | None, x: Tensor, kind: Kind, levels: int | None) -> Tensor | None:
    """A control of one channel, or of as many as the samples x have, between black and white of these."""
    if control is None or control.shape[1] not in (1, x.shape[1]) or kind.shown(x) is None:
        return None
    if any(size % small for size, small in zip(x.shape[2:], control.shape[2:], strict=True)):
        # Finer than the samples are.
        return None
    low, high = kind.scale(x.double(), levels)
    control = control.nan_to_num()
    least, most = control.min(), control.max()
    unit = (control - least) / (most - least).clamp(min=1e-12)
    return (low + unit * (high - low)).expand(-1, x.shape[1], *control.shape[2:])


def show(
    x: Tensor,
    cond: Condition | None,
    path: Path,
    *,
    kind: Kind,
    levels: int | None,
    sizes: Tensor | None = None,
    words: Sequence[str] | None = None,
) -> bool:
    """Samples as by ``picture``, with the ``words`` that they were drawn for; beside each the image that it is
    conditioned on, where that has its channels, or its first control."""
    image = None if cond is None else cond.get("image", _as_image(cond.get(CONTROL), x, kind, levels))
    if image is None or image.shape[1] != x.shape[1]:
        return picture(x, path, kind=kind, levels=levels, labels=labels_of(cond), sizes=sizes, words=words)
    return comparison(repeat_to(image.nan_to_num(), x.shape[2:]).to(x), x, path, kind=kind, levels=levels, sizes=sizes)
