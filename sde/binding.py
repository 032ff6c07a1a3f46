"""Conditions bound to the rows of a batch, so that samplers need not know of them."""

from torch import Tensor

from sde.condition import Condition, check_labels, map_condition


def bind(cond: Condition) -> Condition:
    """cond with one row a sample, or a single row that serves every sample; a single label may come without rows."""
    return map_condition(lambda c: c[None] if c.ndim == 0 else c, cond)


def bind_labels(cond: Condition, num_classes: int | None) -> Condition:
    """``bind``, where a tensor of integers holds labels. Raises ValueError for labels that the model does not know."""
    if isinstance(cond, Tensor) and not cond.is_floating_point():
        check_labels(cond, num_classes)
    return bind(cond)


def rows_of(cond: Condition, index: Tensor | slice) -> Condition:
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


def fit(cond: Condition, x: Tensor) -> Condition:
    """The bound condition on the device of x, with one row a sample."""

    def expand_rows(c: Tensor) -> Tensor:
        if len(c) not in (1, len(x)):
            raise ValueError(f"the condition is bound to {len(c)} samples, x has {len(x)}: bind one row a sample")
        return c.to(x.device).expand(len(x), *c.shape[1:])

    return map_condition(expand_rows, cond)
