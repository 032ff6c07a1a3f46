"""Calls of a model, watched: what is reported was counted, never computed from a formula."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from threading import Lock, get_ident
from typing import Self
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from samplers.checks import check_model, check_output, score_models
from samplers.padding import Padded
from samplers.protocol import FlowMap, ScoreModel, is_flow_map

See = Callable[[Tensor, Tensor, Tensor], None]
"""An observer of a model's calls, told x, t and the output of each."""

# Which rows of the batch a solver is calling the model on. The solver and the watch around it meet only in the model,
# whose x and t guidance may have doubled or split, so that a variable of the context tells the one of the other.
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


class Watch:
    """Watches the score models inside ``model``, by one hook each, inside a ``with`` block.

    Until ``first_step_made`` it raises TypeError or ValueError where one returns anything but one tensor of the shape
    of its x. Where ``count``, the number of rows of the batch, is given, it counts the rows that pass through the
    innermost: those that wrap no other, so that guidance which runs two passes in one batch counts two. A guiding
    classifier's calls are not among them. ``see(x, t, output)`` is told of every call of the model itself.

    Calls from other threads are another run's: one model may serve several. So are those of a callback, while it is
    ``paused``.
    """

    def __init__(self, model: nn.Module, count: int | None = None, see: See | None = None) -> None:
        check_model(model, kind=FlowMap if is_flow_map(model) else ScoreModel)
        # A padded model's views are those of the model inside, which is what is called.
        self.model, self.count, self.see = model.model if isinstance(model, Padded) else model, count, see
        models = score_models(model)
        self.watched = list(dict.fromkeys([self.model, *models]))
        self.innermost = {m for m in models if len(score_models(m)) == 1} if count else set()
        self._shared, self._own = 0, torch.zeros(count or 0, dtype=torch.float64, device="cpu")

    def _called(self, module: nn.Module, called: nn.Module, args: tuple, kwargs: dict, output) -> None:
        # The module watched may be called as a copy for some rows, which has its hooks.
        if get_ident() != self.thread or self.resting:
            return
        x = args[0] if args else kwargs["x"]
        if self.checking:
            check_output(module, x, output)
        if module in self.innermost:
            index = _PART.get()
            if index is None:
                self._shared += len(x)
            else:
                self._own[index] += len(x) / len(index)
        if module is self.model and self.see is not None:
            self.see(x, args[1] if len(args) > 1 else kwargs["t"], output)

    def __enter__(self) -> Self:
        self.thread, self.checking, self.resting = get_ident(), True, False
        # A run within a solver's call has a batch of its own.
        self.token = _PART.set(None)
        self.handles = {m: m.register_forward_hook(partial(self._called, m), with_kwargs=True) for m in self.watched}
        return self

    def __exit__(self, *exception) -> None:
        _PART.reset(self.token)
        for handle in self.handles.values():
            handle.remove()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Calls inside are those of somebody else."""
        self.resting = True
        try:
            yield
        finally:
            self.resting = False

    def first_step_made(self) -> None:
        """Outputs need no more checks, and modules that are neither counted nor seen no more hooks."""
        if not self.checking:
            return
        self.checking = False
        for module, handle in self.handles.items():
            if module not in self.innermost and (module is not self.model or self.see is None):
                handle.remove()

    @property
    def nfe(self) -> Tensor:
        """How many calls each of the ``count`` samples took, (count,) in float64; a call on rows that are not known
        apart is shared among all in the batch."""
        return self._own + self._shared / (self.count or 1)


_LOCK = Lock()
_HELD: WeakKeyDictionary[nn.Module, tuple[bool, int]] = WeakKeyDictionary()
# Modules in eval mode for somebody's sake: their own mode, and how many hold them.


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode, each of its modules put back by the last one to leave: modules may be shared by threads
    and by models."""
    modules = [*model.modules()]
    with _LOCK:
        for module in modules:
            mode, users = _HELD.get(module, (module.training, 0))
            _HELD[module] = mode, users + 1
        model.eval()
    try:
        yield
    finally:
        with _LOCK:
            for module in modules:
                mode, users = _HELD.pop(module)
                if users > 1:
                    _HELD[module] = mode, users - 1
                else:
                    module.training = mode
