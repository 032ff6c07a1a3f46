"""Binding of conditions to the rows of a batch, so that samplers need not know of them."""

from torch import Tensor, nn

from sde.condition.tree import (
    BoundCondition,
    C,
    ConditionLike,
    as_labels,
    as_tree,
    check_condition,
    check_labels,
    map_condition,
)
from sde.device import as_tensor, send


def bind(cond: C) -> C:
    """cond (tensors, or what ``as_tensor`` takes) with one row per sample, or a single row that serves every sample; a
    single label may come without rows."""

    def rows(c: Tensor) -> Tensor:
        c = as_tensor(c)
        return c[None] if c.ndim == 0 else c

    return map_condition(rows, cond)


def bind_labels(labels: Tensor, num_classes: int | None) -> Tensor:
    """``bind``; ``num_classes`` None allows any class. Raises ValueError for labels that a model does not know."""
    labels = as_labels(bind(labels))
    check_labels(labels, num_classes or int(labels.max()) + 1)
    return labels


def bind_condition(cond: ConditionLike, model: nn.Module) -> BoundCondition:
    """``bind``, on the device of the model; what is bound already stays as it is. Raises ValueError unless the model
    is conditioned on just that."""
    if isinstance(cond, BoundCondition):
        return cond
    found = as_tree(bind(cond)) or {}
    check_condition(found, getattr(model, "num_classes", None), getattr(model, "conditions", None) or {})
    weight = next(model.parameters(), None)
    if weight is not None:
        # Here once, since a copy from the host at every network call would make it wait for the device.
        found = map_condition(lambda c: c.to(weight.device), found)
    return BoundCondition(found)


def rows_of(cond: C, index: Tensor | slice) -> C:
    """Rows of a bound condition; a single row serves every sample."""

    def take(c: Tensor) -> Tensor:
        if len(c) == 1:
            return c
        if isinstance(index, Tensor) and len(index) and int(index.max()) >= len(c):
            raise ValueError(
                f"a condition or y is bound to {len(c)} samples, {int(index.max()) + 1} are asked for: bind one row "
                "per sample, and for a plan one row per pilot"
            )
        return c[send(index, c.device)] if isinstance(index, Tensor) else c[index]

    return map_condition(take, cond)


def expand_rows(cond: C, x: Tensor) -> C:
    """The bound condition on the device of x, with one row per sample."""

    def expanded(c: Tensor) -> Tensor:
        if len(c) not in (1, len(x)):
            raise ValueError(f"a condition or y is bound to {len(c)} samples, x has {len(x)}: bind one row per sample")
        return send(c, x.device).expand(len(x), *c.shape[1:])

    return map_condition(expanded, cond)
