"""Counting network calls: what is reported was counted, never computed from a formula."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from samplers.checks import check_model, score_models

# The solver that takes finished rows out of the batch and the counter around it meet only in the model between them.
_PART: ContextVar[Tensor | None] = ContextVar("part", default=None)


@contextmanager
def part(model, index: Tensor, count: int) -> Iterator:
    """The model for the rows ``index`` of a batch of ``count``; calls inside are counted for those rows alone."""
    if len(index) == count:
        yield model
        return
    token = _PART.set(index)
    try:
        yield model.rows(index)
    finally:
        _PART.reset(token)


class CallCounter:
    """Counts the rows that pass through the innermost score models of ``model`` inside a ``with`` block.

    A score model is a module with an ``sde``; the innermost are those that wrap no other, so that guidance which runs
    two passes in one batch counts two. A guiding classifier's calls are not among them. ``nfe`` says how many each of
    the ``count`` samples of the batch took.
    """

    def __init__(self, model: nn.Module, count: int) -> None:
        check_model(model)
        self.innermost = [m for m in score_models(model) if len(score_models(m)) == 1]
        self.count = count
        self._shared, self._own = 0, torch.zeros(count, dtype=torch.float64)

    def _count(self, module: nn.Module, args: tuple, kwargs: dict, output) -> None:
        rows, index = len(args[0] if args else kwargs["x"]), _PART.get()
        if index is None:
            self._shared += rows
        else:
            self._own[index] += rows / len(index)

    def __enter__(self) -> "CallCounter":
        self.handles = [m.register_forward_hook(self._count, with_kwargs=True) for m in self.innermost]
        return self

    def __exit__(self, *exception) -> None:
        for handle in self.handles:
            handle.remove()

    @property
    def nfe(self) -> Tensor:
        """(count,) in float64; a call on rows that are not known apart is shared among all in the batch."""
        return self._own + self._shared / self.count


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
