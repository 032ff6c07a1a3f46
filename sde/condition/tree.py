"""Conditions: what a model is told of each sample beside its noise level, as a tree of tensors with one row a sample.

The tree is a dict with some of KINDS: ``"labels"`` (B,), integers; ``"vector"`` (B, d); ``"image"`` (B, C, *space);
``"sequence"`` (B, L, d), tokens without an order. Labels alone may come as a plain tensor of integers.

The null condition, which stands for "unconditional" and whose embedding is learned, is written into the tensor itself:
-1 for integers, NaN for floats. So a batch can mix conditioned and unconditioned rows in one network call.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Condition = Tensor | dict[str, Tensor]


C = TypeVar("C", Tensor, dict[str, Tensor], Tensor | dict[str, Tensor], Tensor | dict[str, Tensor] | None)


Shapes = Mapping[str, Sequence[int]]
"""Shapes of one row, by kind, of the conditions that are numbers."""


NULL_LABEL = -1


FEATURES = {"vector": 1, "image": 1, "sequence": 2}
"""The kinds of conditions that are numbers, and the axis of their features: entries, channels, entries of a token."""


KINDS = ("labels", *FEATURES)


def map_condition(function: Callable[..., Tensor], *conditions: C) -> C:
    """Apply a function to every tensor of one or several conditions of the same structure; None stays None."""
    trees: Any = conditions
    if conditions[0] is None:
        return None
    if isinstance(conditions[0], dict):
        return {key: function(*(tree[key] for tree in trees)) for key in conditions[0]}
    return function(*conditions)


def as_tree(cond: Condition | None) -> dict[str, Tensor]:
    """A condition by kind: a plain tensor holds labels, None nothing."""
    return cond if isinstance(cond, dict) else {} if cond is None else {"labels": cond}


def as_condition(tree: dict[str, Tensor]) -> Condition | None:
    """The inverse of ``as_tree``: labels alone as a plain tensor, nothing as None."""
    return tree["labels"] if tree.keys() == {"labels"} else tree or None


def condition_kinds(model: nn.Module) -> tuple[str, ...]:
    """The KINDS that a model is conditioned on, by its ``num_classes`` and, where it has any, ``conditions``."""
    return ("labels",) * bool(model.num_classes) + tuple(getattr(model, "conditions", None) or ())


def known(cond: Condition | None, model: nn.Module) -> Condition | None:
    """What of a condition a model is conditioned on; None where that is nothing."""
    tree = as_tree(cond)
    return as_condition({kind: tree[kind] for kind in condition_kinds(model) if kind in tree})


def null_like(cond: C) -> C:
    """The null condition in the shape of cond."""
    return map_condition(lambda c: torch.full_like(c, torch.nan if c.is_floating_point() else NULL_LABEL), cond)


def null_tree(x: Tensor, num_classes: int | None, shapes: Shapes) -> dict[str, Tensor]:
    """The null condition for each row of x, of a model with these classes and conditions."""
    tree = {"labels": x.new_full((len(x),), NULL_LABEL, dtype=torch.long)} if num_classes else {}
    return tree | {kind: x.new_full((len(x), *shape), torch.nan) for kind, shape in shapes.items()}


def drop(cond: Condition, dropped: Tensor) -> Condition:
    """cond with the rows where ``dropped`` (B,) is True replaced by null: jointly, over all its tensors."""

    def mask(c: Tensor, null: Tensor) -> Tensor:
        return torch.where(dropped.view(-1, *[1] * (c.ndim - 1)), null, c)

    return map_condition(mask, cond, null_like(cond))


def check_labels(labels: Tensor, num_classes: int | None) -> None:
    """Raise ValueError unless labels are integers in [0, num_classes), or -1 for null."""
    if num_classes is None:
        raise ValueError("labels were given, but the model is unconditional: leave the labels out")
    if labels.is_floating_point() or labels.ndim > 1:
        raise ValueError(f"labels must be integers of shape (B,); got {labels.dtype} of shape {tuple(labels.shape)}")
    low, high = int(labels.min()), int(labels.max())
    if low < NULL_LABEL or high >= num_classes:
        hint = " (are they 1-based?)" if high == num_classes else ""
        raise ValueError(
            f"label {high if high >= num_classes else low} is out of range: allowed are 0 to {num_classes - 1}{hint}"
        )


def check_kinds(cond: Condition, num_classes: int | None, shapes: Shapes) -> dict[str, Tensor]:
    """The tree of a condition. Raise ValueError unless it holds what a model of these classes and conditions takes, no
    more and no less, and numbers of the right shape; values are not looked at, so that no device has to be waited for.
    """
    if isinstance(cond, Tensor) and cond.is_floating_point():
        raise ValueError(
            f"a condition that is a plain tensor holds labels, which are integers; got {cond.dtype}: name the kind of "
            'others, as in {"vector": cond}'
        )
    tree, wanted = as_tree(cond), ("labels",) * bool(num_classes) + tuple(shapes)
    if not wanted:
        raise ValueError(f"a condition ({', '.join(tree)}) was given, but the model is unconditional: leave it out")
    takes = f"the model is conditioned on {' and '.join(wanted)}"
    for kind, c in tree.items():
        if kind not in wanted:
            raise ValueError(f"the condition has {kind!r}, but {takes}: leave it out")
        if not isinstance(c, Tensor):
            raise ValueError(f"the condition {kind!r} is no tensor but {type(c).__name__}: torch.tensor makes one")
    for kind in wanted:
        if kind not in tree:
            null = NULL_LABEL if kind == "labels" else "NaN"
            raise ValueError(f"the condition has no {kind!r}, but {takes}: give it, {null} in rows that have none")
    for kind, shape in shapes.items():
        _check_numbers(kind, tree[kind], tuple(shape))
    return tree


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
    tree = check_kinds(cond, num_classes, shapes)
    if "labels" in tree:
        check_labels(tree["labels"], num_classes)
    if len({len(c) for c in tree.values()} - {1}) > 1:
        rows = ", ".join(f"{kind} has {len(c)}" for kind, c in tree.items())
        raise ValueError(f"the conditions have other numbers of rows ({rows}): needs one row a sample in each")
