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
    NULL_LABEL,
    C,
    Condition,
    check_condition,
    condition_kinds,
    labels_of,
    map_condition,
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
    model = guides.denoiser
    usual = "data" if by_law and guides.classes else None
    labeled = labels or usual
    asked = Labels(labeled, model, guides.classes, guides.names, run.class_counts if labeled == "data" else None)
    told = prompted(model, "--prompt", read_prompts("--prompt", prompt), count) if prompt else {}
    level = read_levels(condition_noise, [(run, model)])[0]
    if told and (file == "none" or not file):
        # Else none of the classes, since a prompt says it all.
        classes = asked.of_samples(count, seed) if labels else None
        found = told | (classes or (no_labels(count) if model.num_classes else {}))
        with with_flag("--prompt", prompt):
            check_condition(found, model.num_classes, model.conditions)
        return found
    if not (file or model.conditions):
        return asked.of_samples(count, seed)
    if labels and (file == "none" or not file):
        others = " and ".join(model.conditions)
        raise ValueError(
            f"--labels={labels}: the model is conditioned on {others} as well, and held-out items have classes of "
            "their own; add --condition=FILE.npz or --cascade, or leave the labels out"
        )
    if file == "none":
        return None
    if not file:
        own = held_out_condition(run.data()[1], model, count)
        return None if own is None else with_level(model, own, level, seed)
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
    silent = {} if level is None else {CONDITION_NOISE: torch.zeros(1, 1)}
    with with_flag("--condition", file):
        found = restrict_to(silent | given | cycled(beside, 1), model) or {}
        check_condition(found, model.num_classes, model.conditions)
    if condition_noise is None and CONDITION_NOISE in given:
        return cycled(given, count) | beside
    return with_level(model, cycled(given, count) | beside, level, seed)


def prompts_of(run: Run, model: Preconditioned, prompt: str | None, file: str | None, count: int) -> list[str] | None:
    """The texts of what ``read_condition`` returns, one for each of ``count`` samples: prompts, or by default the
    captions of held-out items; None where it has none."""
    if model.text is None or (file and not prompt):
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
    conditioned on, where that has its channels."""
    image = None if cond is None else cond.get("image")
    if image is None or image.shape[1] != x.shape[1]:
        return picture(x, path, kind=kind, levels=levels, labels=labels_of(cond), sizes=sizes, words=words)
    small = repeat_to(image.nan_to_num(), x.shape[2:]).to(x)
    return comparison(small, x, path, kind=kind, levels=levels, sizes=sizes, words=words)
