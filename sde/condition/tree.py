"""The dict of a condition (see ``sde.condition``): its kinds, its null rows, and what a model may be given."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn

Condition = dict[str, Tensor]
"""A condition as the library passes it on: tensors by kind, one row per sample."""


ConditionLike = Tensor | Condition
"""A condition as users may give it: labels alone may be a plain tensor."""


C = TypeVar("C", Tensor, Condition, ConditionLike, Condition | None, ConditionLike | None)


class BoundCondition(Condition):
    """A condition that was checked when it was bound to a model, so that no network has to check it at every call."""


Shapes = Mapping[str, Sequence[int]]
"""Shapes of one row, by kind, of the conditions that are numbers."""


NULL_LABEL = -1


CONDITION_NOISE = "condition_noise"
"""The level of the noise that is on a condition image or vector (sde.condition.noise), a number per row."""


FEATURES = {"vector": 1, "image": 1, "sequence": 2, "control": 1, CONDITION_NOISE: 1}
"""The kinds of conditions that are numbers, and the axis of their features: entries, channels, entries of a token,
channels, and a level."""


KINDS = ("labels", *FEATURES)


AUGMENTATION = "augmentation"
"""What a network is told, in training, of how its items were augmented (sde.training.augmentation): no condition, but
passed on among them."""


CONTROL = "control"
"""An image that a ControlNet brings to a network that knows nothing of it. Guidance and the dropout of conditions leave
it as it is: a row without one, NaN, is the network without ControlNet, which need not be learned."""


def control_kind(number: int) -> str:
    """The kind of a control by its number, from 0: "control", "control_2" and so on."""
    return f"{CONTROL}_{number + 1}" if number else CONTROL


def is_control(kind: str) -> bool:
    """Whether a kind is that of a control."""
    return kind.partition("_")[0] == CONTROL


def feature_axis(kind: str) -> int:
    """The axis of the features of a kind, of further controls as of the first."""
    return FEATURES[CONTROL if is_control(kind) else kind]


def map_condition(function: Callable[..., Tensor], *conditions: C) -> C:
    """Apply a function to every tensor of one or several conditions of the same structure; None stays None, and what
    is bound stays bound. Serves single tensors as well."""
    trees: Any = conditions
    first = conditions[0]
    if first is None:
        return None
    if isinstance(first, dict):
        return type(first)({key: function(*(tree[key] for tree in trees)) for key in first})
    return function(*conditions)


@overload
def as_tree(cond: ConditionLike) -> Condition: ...
@overload
def as_tree(cond: None) -> None: ...
def as_tree(cond: ConditionLike | None) -> Condition | None:
    """What a user gives, by kind: a plain tensor holds labels. Labels become int64, as by ``as_labels``. Raises
    ValueError for labels that are floats."""
    if cond is None or isinstance(cond, BoundCondition):
        return cond
    if isinstance(cond, dict):
        labels = cond.get("labels")
        if not isinstance(labels, Tensor) or labels.dtype == torch.int64:
            return cond
        return cond | {"labels": as_labels(labels)}
    if isinstance(cond, Tensor) and cond.is_floating_point():
        raise ValueError(
            f"a condition that is a plain tensor holds labels, which are integers; got {cond.dtype}: name the kind of "
            'others, as in {"vector": cond}'
        )
    return {"labels": as_labels(cond) if isinstance(cond, Tensor) else cond}


def as_labels(labels: Tensor) -> Tensor:
    """Labels of any type of integers as int64, which has room for null; of booleans, False is class 0 and True class 1.
    Raises ValueError for other types; floats are not looked at, so that no device has to be waited for."""
    if labels.dtype == torch.int64:
        return labels
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels must be integers of shape (B,); got {labels.dtype} of shape {tuple(labels.shape)}")
    found = labels.long()
    if labels.dtype == torch.uint64 and bool((found < 0).any()):
        raise ValueError("labels of type torch.uint64 do not fit into int64: number the classes from 0")
    return found


def labels_of(cond: Condition | None) -> Tensor | None:
    """The labels (B,) of a condition, where it has any."""
    return None if cond is None else cond.get("labels")


def require_labels(cond: Condition | None) -> Tensor:
    """The labels (B,) of a condition that must have them. Raises ValueError where it has none."""
    labels = labels_of(cond)
    if labels is None:
        raise ValueError("the condition has no labels: give the classes, one per sample")
    return labels


def condition_kinds(model: nn.Module) -> tuple[str, ...]:
    """The KINDS that a model is conditioned on, by its ``num_classes`` and, where it has any, ``conditions``."""
    num_classes: Any = model.num_classes
    return _kinds(num_classes, getattr(model, "conditions", None) or {})


def _kinds(num_classes: int | None, shapes: Shapes) -> tuple[str, ...]:
    return ("labels", *shapes) if num_classes else tuple(shapes)


def restrict_to(cond: Condition | None, model: nn.Module) -> Condition | None:
    """The entries of a condition that a model is conditioned on, and what it is told of augmentation; None where there
    are none."""
    if cond is None:
        return None
    return {kind: cond[kind] for kind in (*condition_kinds(model), AUGMENTATION) if kind in cond} or None


def null_like(cond: C, keep: Callable[[str], bool] = lambda kind: False) -> C:
    """The null condition in the shape of cond; that of labels is int64, since booleans and bytes have none. Of a dict,
    kinds of which ``keep`` is True stay as they are, and so does what says how items were augmented, which is no
    condition."""

    def null(c: Tensor) -> Tensor:
        return (
            torch.full_like(c, torch.nan) if c.is_floating_point() else torch.full_like(c, NULL_LABEL, dtype=torch.long)
        )

    found: Any = map_condition(null, cond)
    if isinstance(cond, dict):
        found.update({kind: c for kind, c in cond.items() if kind == AUGMENTATION or keep(kind)})
    return found


def null_tree(x: Tensor, num_classes: int | None, shapes: Shapes) -> Condition:
    """The null condition for each row of x, of a model with these classes and conditions."""
    tree = {"labels": x.new_full((x.shape[0],), NULL_LABEL, dtype=torch.long)} if num_classes else {}
    return tree | {kind: x.new_full((x.shape[0], *shape), torch.nan) for kind, shape in shapes.items()}


def drop_conditions(cond: C, dropped: Tensor) -> C:
    """cond with the rows where ``dropped`` (B,) is True replaced by null: jointly, over all its tensors but the
    controls, and but what says how items were augmented, which are augmented all the same."""

    def mask(c: Tensor, null: Tensor) -> Tensor:
        c = c if c.is_floating_point() else as_labels(c)
        return torch.where(dropped.view(-1, *[1] * (c.ndim - 1)), null, c)

    return map_condition(mask, cond, null_like(cond, is_control))


def check_labels(labels: Tensor, num_classes: int | None) -> None:
    """Raise ValueError unless labels are integers in [0, num_classes), or -1 for null."""
    if num_classes is None:
        raise ValueError("labels were given, but the model is unconditional: leave the labels out")
    if labels.is_floating_point() or labels.ndim > 1 or not labels.numel():
        hint = ""
        if labels.ndim == 2:
            hint = ": flatten them" if labels.shape[1] == 1 else ": if they are one-hot, take .argmax(1)"
        raise ValueError(
            f"labels must be integers of shape (B,); got {labels.dtype} of shape {tuple(labels.shape)}{hint}"
        )
    labels = as_labels(labels)
    low, high = int(labels.min()), int(labels.max())
    if low < NULL_LABEL or high >= num_classes:
        hint = " (are they 1-based?)" if high == num_classes else ""
        raise ValueError(
            f"label {high if high >= num_classes else low} is out of range: allowed are 0 to {num_classes - 1}{hint}"
        )


def check_kinds(cond: Condition, num_classes: int | None, shapes: Shapes) -> None:
    """Raise ValueError unless a condition holds what a model of these classes and conditions takes, no more and no
    less, and numbers of the right shape. Values are not looked at, so that no device has to be waited for."""
    wanted = _kinds(num_classes, shapes)
    if not wanted:
        raise ValueError(f"a condition ({', '.join(cond)}) was given, but the model is unconditional: leave it out")
    takes = f"the model is conditioned on {' and '.join(wanted)}"
    for kind, c in cond.items():
        if kind not in wanted:
            raise ValueError(f"the condition has {kind!r}, but {takes}: leave it out")
        if not isinstance(c, Tensor):
            raise ValueError(f"the condition {kind!r} is no tensor but {type(c).__name__}: torch.tensor makes one")
    for kind in wanted:
        if kind not in cond:
            null = NULL_LABEL if kind == "labels" else "NaN"
            raise ValueError(f"the condition has no {kind!r}, but {takes}: give it, {null} in rows that have none")
    for kind, shape in shapes.items():
        _check_numbers(kind, cond[kind], tuple(shape))


def _check_numbers(kind: str, numbers: Tensor, shape: tuple[int, ...]) -> None:
    if not numbers.is_floating_point():
        raise ValueError(f"the condition {kind!r} has type {numbers.dtype}: it takes floats, with NaN for null")
    # Sequences may have any length.
    start = 1 if kind == "sequence" else 0
    if numbers.ndim != len(shape) + 1 or numbers.shape[1 + start :] != shape[start:]:
        sizes = ", ".join(["B", *["any length"] * start, *map(str, shape[start:])])
        raise ValueError(f"the condition {kind!r} has shape {tuple(numbers.shape)}: the model takes ({sizes})")


def check_condition(cond: Condition, num_classes: int | None, shapes: Shapes) -> None:
    """``check_kinds``; raise ValueError for labels out of range as well, and for tensors of other numbers of rows,
    where a single row serves every sample."""
    check_kinds(cond, num_classes, shapes)
    if "labels" in cond:
        check_labels(cond["labels"], num_classes)
    if len({len(c) for c in cond.values()} - {1}) > 1:
        rows = ", ".join(f"{kind} has {len(c)}" for kind, c in cond.items())
        raise ValueError(f"the conditions have other numbers of rows ({rows}): needs one row per sample in each")
