"""Counting network calls: what is reported was counted, never computed from a formula."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


class CallCounter:
    """Counts the rows that pass through the innermost score models of ``model`` inside a ``with`` block.

    A score model is a module with an ``sde``; the innermost are those that wrap no other, so that guidance which runs
    two passes in one batch counts two. A guiding classifier's calls are not among them. ``per_sample(n)`` is the mean
    number of calls that each of n samples took.
    """

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module) or not hasattr(model, "sde"):
            raise TypeError(
                f"expected a score model, a torch module with an `sde` that maps (x, t) to a tensor of the "
                f"shape of x; got {type(model).__name__}"
            )
        scored = [m for m in model.modules() if hasattr(m, "sde") and hasattr(m, "score")]
        self.innermost = [m for m in scored if not any(o is not m and hasattr(o, "score") for o in m.modules())]
        self.rows = 0

    def _count(self, module: nn.Module, args: tuple, kwargs: dict, output) -> None:
        self.rows += len(args[0] if args else kwargs["x"])

    def __enter__(self) -> "CallCounter":
        self.handles = [m.register_forward_hook(self._count, with_kwargs=True) for m in self.innermost]
        return self

    def __exit__(self, *exception) -> None:
        for handle in self.handles:
            handle.remove()

    def per_sample(self, count: int) -> float:
        """Mean calls a sample."""
        return self.rows / count


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode, each of its modules put back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
