"""Conditions bound to the rows of a batch, so that samplers need not know of them."""

from typing import cast

from torch import Tensor, nn

from sde.condition import C, Condition, as_condition, as_tree, check_condition, check_labels, map_condition


def bind(cond: C) -> C:
    """cond with one row a sample, or a single row that serves every sample; a single label may come without rows."""
    return map_condition(lambda c: c[None] if c.ndim == 0 else c, cond)


def bind_labels(labels: Tensor, num_classes: int | None) -> Tensor:
    """``bind``. Raises ValueError for labels that a model does not know."""
    check_labels(labels, num_classes)
    return bind(labels)


def bind_condition(cond: Condition, model: nn.Module) -> Condition:
    """``bind``; labels alone become a plain tensor. Raises ValueError unless the model is conditioned on just that."""
    cond = bind(cond)
    check_condition(cond, getattr(model, "num_classes", None), getattr(model, "conditions", None) or {})
    return cast(Condition, as_condition(as_tree(cond)))


def rows_of(cond: C, index: Tensor | slice) -> C:
    """Rows of a bound condition; a single row serves every sample."""

    def take(c: Tensor) -> Tensor:
        if len(c) == 1:
            return c
        if isinstance(index, Tensor) and len(index) and int(index.max()) >= len(c):
            raise ValueError(
                f"the condition is bound to {len(c)} samples, {int(index.max()) + 1} are asked for: bind one row a "
                "sample, and for a plan one row a pilot"
            )
        return c[index]

    return map_condition(take, cond)


def fit(cond: C, x: Tensor) -> C:
    """The bound condition on the device of x, with one row a sample."""

    def expand_rows(c: Tensor) -> Tensor:
        if len(c) not in (1, len(x)):
            raise ValueError(f"the condition is bound to {len(c)} samples, x has {len(x)}: bind one row a sample")
        return c.to(x.device).expand(len(x), *c.shape[1:])

    return map_condition(expand_rows, cond)
