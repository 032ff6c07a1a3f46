"""Conditions: a tensor of class labels, or a dict of tensors with one row a sample.

The null condition, which stands for "unconditional" and whose embedding is learned, is written into the tensor itself:
-1 for integers, NaN for floats. So a batch can mix conditioned and unconditioned rows in one network call.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Condition = Tensor | dict[str, Tensor]
NULL_LABEL = -1


def map_condition(function: Callable[..., Tensor], *conditions: Condition) -> Condition:
    """Apply a function to every tensor of one or several conditions of the same structure."""
    if isinstance(conditions[0], dict):
        return {key: function(*(c[key] for c in conditions)) for key in conditions[0]}
    return function(*conditions)


def null_like(cond: Condition) -> Condition:
    """The null condition in the shape of cond."""
    return map_condition(lambda c: torch.full_like(c, torch.nan if c.is_floating_point() else NULL_LABEL), cond)


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
