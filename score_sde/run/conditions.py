"""Conditions of samples: what flags give, and held-out items."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from score_sde.config.naming import with_flag
from score_sde.run.condition_files import read_arrays
from score_sde.run.condition_noise import read_levels, with_level
from score_sde.run.folder import Run
from score_sde.run.guides import Guides
from score_sde.run.labels import Labels
from score_sde.run.text import cycled_prompts, prompted, read_prompts, reads
from sde.condition.tree import (
    CONDITION_NOISE,
    NULL_LABEL,
    C,
    Condition,
    check_kinds,
    check_labels,
    is_control,
    labels_of,
    map_condition,
    null_tree,
    restrict_to,
)
from sde.data import Dataset
from sde.data.statistics import spread
from sde.model.denoiser import Preconditioned


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
    """The condition of ``count`` samples: each flag gives some of its kinds, cycled, and each kind one flag alone.

    Of what none gives, images, vectors and sequences are those of held-out items unless ``--condition`` or ``--prompt``
    says what the samples are, and controls are those of held-out items all the same; a pipeline has no items, and there
    and with ``--condition=none`` it is null. Classes then are those of the items, or null beside a prompt, or drawn
    ``by_law``, as often as the data have them and by ``seed``, or else all of them in turn. None where nothing is said.
    Where the model is told of noise on its condition, there is noise of ``--condition_noise``, by ``seed``, unless the
    file says its level. Raises ValueError for what the model does not take.
    """
    model, arrays = guides.denoiser, None if file == "none" else file
    further = [kind for kind in model.conditions if not is_control(kind) and kind != CONDITION_NOISE]
    spoken, level = bool(arrays or prompt), read_levels(condition_noise, [(run, model)])[0]
    others = "told captions" if reads(model) else f"conditioned on {' and '.join(further)}"
    if labels and labels != "none" and further and not guides.classes:
        remedy = "give --prompt, or leave them out" if reads(model) else "leave it out"
        raise ValueError(f"--labels={labels}: the model is {others}, and has no classes; {remedy}")
    if labels and further and not spoken:
        remedy = "--prompt" if reads(model) else "--condition=FILE.npz or --cascade"
        raise ValueError(
            f"--labels={labels}: the model is {others} as well, and held-out items have classes of their own; add "
            f"{remedy}, or leave the labels out"
        )
    usual = labels or ("data" if by_law and guides.classes else None)
    asked = Labels(usual, model, guides.classes, guides.names, run.class_counts if usual == "data" else None)
    none = no_labels(count) if guides.classes else {}
    given = gathered({
        f"--labels={labels}": asked.of_samples(count, seed) or none if labels else {},
        f"--prompt={prompt}": prompted(model, "--prompt", read_prompts("--prompt", prompt), count) if prompt else {},
        f"--control={guides.options.control}": guides.given_controls(count),
        f"--condition={arrays}": read_arrays(arrays, model, guides.names) if arrays else {},
    })  # fmt: skip
    null = null_tree(torch.empty(count), model.num_classes, model.conditions)
    if file == "none" or (run.pipeline and model.conditions and not arrays):
        found = null | given if given else {}
    else:
        wanted = [kind for kind in null if kind not in given and (is_control(kind) or not spoken)]
        items = of_held_out(run, guides, wanted, labels_of(given), count)
        found = items | given
        if "labels" not in found and (spoken or not items):
            classes = null_tree(torch.empty(count), model.num_classes, {}) if prompt else asked.of_samples(count, seed)
            found |= classes or {}
    if spoken:
        with with_flag("--condition", arrays) if arrays else with_flag("--prompt", prompt):
            silent = {} if level is None else {CONDITION_NOISE: torch.zeros(1, 1)}
            known = restrict_to(silent | found, model) or {}
            check_kinds(known, model.num_classes, model.conditions)
            if "labels" in known:
                check_labels(known["labels"], model.num_classes)
    # Labels that are to be none are no condition by themselves.
    if not found or (labels == "none" and [*found] == ["labels"]):
        return None
    found = cycled(found, count)
    if level is None or (condition_noise is None and CONDITION_NOISE in found):
        return found
    return with_level(model, found, level, seed)


def gathered(sources: Mapping[str, Condition]) -> Condition:
    """What the flags give together. Raises ValueError for two that give the same."""
    found: Condition = {}
    by: dict[str, str] = {}
    for flag, given in sources.items():
        for kind in given:
            if kind in found:
                raise ValueError(f"{by[kind]} and {flag} both give {kind}: choose one")
        found |= given
        by |= dict.fromkeys(given, flag)
    return found


def of_held_out(run: Run, guides: Guides, kinds: Sequence[str], labels: Tensor | None, count: int) -> Condition:
    """These kinds of ``count`` held-out items: spread over the data, or those of the classes that ``labels`` (count,)
    are, one after the other. Nothing where there are labels alone, which need no items."""
    if not {*kinds} - {"labels"}:
        return {}
    data = run.data()[1]
    if guides.controls is not None and any(map(is_control, kinds)):
        data = guides.controls.held_out(data)
    if labels is None or data.labels is None or bool((labels == NULL_LABEL).all()):
        index = spread(len(data), count)
    else:
        index = _of_classes(data.labels, labels)
    _, cond = data.batch(index)
    return {kind: c for kind, c in cycled(cond or {}, count).items() if kind in kinds}


def _of_classes(known: Tensor, labels: Tensor) -> Tensor:
    """Positions of items of the classes ``labels`` (n,), those of a class one after the other, among the ``known``."""
    positions, taken = [], dict.fromkeys(labels.tolist(), 0)
    for label in labels.tolist():
        own = (known == label).nonzero()[:, 0]
        if not len(own):
            raise ValueError(
                f"--labels: no held-out item is of class {label}, whose control could be taken: give --control"
            )
        positions.append(int(own[taken[label] % len(own)]))
        taken[label] += 1
    return torch.tensor(positions)


def with_controls(model: Preconditioned, cond: Condition | None, controls: Condition, count: int) -> Condition | None:
    """The condition with controls of ``count`` rows in the place of its own, and null for what neither has; as it is
    where the model takes none, and none at all where nothing is said."""
    if not controls and (cond is None or not any(map(is_control, model.conditions))):
        return cond
    told = null_tree(torch.empty(count), model.num_classes, model.conditions)
    return told | (cond or {}) | controls


def prompts_of(run: Run, model: Preconditioned, prompt: str | None, file: str | None, count: int) -> list[str] | None:
    """The texts of what ``read_condition`` returns, one for each of ``count`` samples: prompts, or by default the
    captions of held-out items; None where it has none."""
    if not reads(model) or ((file or run.pipeline) and not prompt):
        return None
    if prompt:
        return cycled_prompts(read_prompts("--prompt", prompt), count)
    held_out = run.data()[1]
    if held_out.captions is None:
        return None
    return cycled_prompts([held_out.captions[i] for i in spread(len(held_out), count).tolist()], count)


def no_labels(count: int) -> Condition:
    """Null in each row."""
    return {"labels": torch.full((count,), NULL_LABEL)}
