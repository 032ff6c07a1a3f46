"""Conditions of samples: labels, prompts, arrays in a file, or held-out items."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from score_sde.config.naming import with_flag, with_words
from score_sde.kinds.base import Kind
from score_sde.plots.pictures import comparison, picture
from score_sde.run.condition_noise import read_levels, with_level
from score_sde.run.folder import Run
from score_sde.run.guides import Guides
from score_sde.run.labels import Labels
from score_sde.run.text import cycled_prompts, prompted, read_prompts
from sde.condition.tree import (
    CONDITION_NOISE,
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
    condition_noise: str | None = None,
) -> Condition | None:
    """``--labels``, ``--condition`` and ``--prompt``, one row for each of ``count`` samples: the prompts and the arrays
    of the file, cycled, or by default, for models that are conditioned on more than classes, held-out items. Classes
    that are not told are drawn ``by_law``, as often as the data have them and by ``seed``, or else are all of them in
    turn; beside a prompt they are none. Where the model is told of noise on its condition, there is noise of
    ``--condition_noise``, by ``seed``. Raises ValueError for what the model does not take."""
    model, controls = guides.denoiser, guides.given_controls(count)
    usual = "data" if by_law and guides.classes else None
    labeled = labels or usual
    asked = Labels(labeled, model, guides.classes, guides.names, run.class_counts if labeled == "data" else None)
    own = [kind for kind in model.conditions if not is_control(kind)]
    # Controls that are not given are those of held-out items.
    awaited = None if controls else guides.controls
    told = prompted(model, "--prompt", read_prompts("--prompt", prompt), count) if prompt else {}
    level = read_levels(condition_noise, [(run, model)])[0]
    if told and (file == "none" or not file):
        # Else none of the classes, since a prompt says it all.
        classes = asked.of_samples(count, seed) if labels else None
        found = told | (classes or (no_labels(count) if model.num_classes else {}))
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
        own_rows = held_out_condition(held_out, model, count)
        own_rows = None if own_rows is None else with_level(model, own_rows, level, seed)
        return with_controls(model, own_rows, controls, count)
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
        beside |= asked.of_samples(count, seed) or no_labels(count)
    if twice := [kind for kind in controls if kind in given]:
        raise ValueError(f"--control={guides.options.control} and --condition={file} both give {twice[0]}: choose one")
    silent = {} if level is None else {CONDITION_NOISE: torch.zeros(1, 1)}
    with with_flag("--condition", file):
        told = silent | given | cycled(beside, 1) | {kind: c[:1] for kind, c in controls.items()}
        check_condition(restrict_to(told, model) or {}, model.num_classes, model.conditions)
    found = cycled(given, count) | beside | controls
    if condition_noise is None and CONDITION_NOISE in given:
        return found
    return with_level(model, found, level, seed)


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
        return restrict_to((found or {}) | (no_labels(count) if labels is None else {"labels": labels}), model)
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


def no_labels(count: int) -> Condition:
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
    small = repeat_to(image.nan_to_num(), x.shape[2:]).to(x)
    return comparison(small, x, path, kind=kind, levels=levels, sizes=sizes, words=words)
