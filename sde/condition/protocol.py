"""The protocol of conditional models: what ``Conditional`` and ``ClassifierFree`` ask of a model of one's own."""

import inspect
from typing import Protocol

from torch import Tensor, nn

from sde.condition.tree import Condition


class ConditionalModel(Protocol):
    """A torch module that is called with (x, t, cond). Nothing has to be inherited; a ``ScoreModel`` with these members
    is one, and so is a ``Denoiser``.

    Beside ``sde``, it has at least one of ``num_classes``, an integer, where it is conditioned on labels, and
    ``conditions``, the shapes without rows by kind (vector, image, sequence, control), where on those. It may leave out
    ``null_trained`` (True: it can be called without a condition), ``transform`` (the identity) and ``kept``, the kinds
    of conditions that guidance leaves in its branch without conditions (none).
    """

    @property
    def num_classes(self) -> int | None: ...

    def __call__(self, x: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """E[x_0 | x_t = x, cond] of the shape of x (B, *event); t is () or (B,), cond a dict of tensors by kind with
        one row per sample. -1 among the labels, and NaN in others, stand for no condition in their row, and None for
        none in all rows."""
        ...


def check_conditional(model: nn.Module) -> None:
    """Raise ValueError for what takes no condition: a network alone, a model that is bound or guided already, or one
    of one's own without the members of ConditionalModel."""
    known = getattr(model, "num_classes", None) or getattr(model, "conditions", None)
    if not hasattr(model, "sde") or not (hasattr(model, "num_classes") or known):
        raise ValueError(
            f"{type(model).__name__} takes no condition: bind the Denoiser itself, once, and put other guidance around "
            "what is bound; a model of your own needs an `sde`, `num_classes` or `conditions`, and a "
            "forward(x, t, cond) (sde.condition.protocol.ConditionalModel)"
        )
    if not _takes_cond(model):
        raise ValueError(
            f"{type(model).__name__} has num_classes or conditions, but its forward takes no condition: it must be "
            "forward(x, t, cond), cond a dict of tensors, or None for none (sde.condition.protocol.ConditionalModel)"
        )


def _takes_cond(model: nn.Module) -> bool:
    """Whether a model can be called with a third argument."""
    try:
        inspect.signature(model.forward).bind(None, None, None)
    except TypeError:
        return False
    except ValueError:
        # Without a signature, as functions of other languages: nothing is known.
        return True
    return True


def null_trained(model: nn.Module) -> bool:
    """Whether a model can be called without a condition; it can where it does not say."""
    return bool(getattr(model, "null_trained", True))


def kept_of(model: nn.Module) -> tuple[str, ...]:
    """The kinds of conditions that guidance leaves in its branch without conditions; none where it does not say."""
    return tuple(getattr(model, "kept", ()))
