"""An SDE's values at the times of a run, computed for all of them at once."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from samplers.checks import score_models

METHODS = ("log_alpha", "sigma", "alpha", "log_snr", "f", "g2")


class Lookup:
    """An elementwise function of t whose values at some 0-d tensors are read from a table, filled at the first use.

    A time is known by the identity of its tensor, not by its value: a lookup reads nothing back, and a time made of
    others, or differentiated through, is computed as ever. The function returns a tensor, or a tuple of them.
    """

    def __init__(self, function: Callable[[Tensor], Tensor | tuple[Tensor, ...]], times: list[Tensor]) -> None:
        # The table holds the tensors themselves: a freed one's id would be given to another.
        self.function, self.times = function, times
        self.rows = {id(t): row for row, t in enumerate(times)}
        self.values: list | None = None

    def __call__(self, t: Tensor) -> Tensor | tuple[Tensor, ...]:
        row = self.rows.get(id(t))
        # A copy of this table, made inside a run, has other tensors than its ids say.
        if row is None or self.times[row] is not t or self.values == []:
            return self.function(t)
        if self.values is None:
            self.values = self._fill()
        return self.values[row] if self.values else self.function(t)

    def _fill(self) -> list:
        """The values at all times; empty where the function takes one time alone, or is not elementwise in it."""
        try:
            found = self.function(torch.stack(self.times))
            parts = [found] if isinstance(found, Tensor) else list(found)
            if not all(part.shape == (len(self.times),) for part in parts):
                return []
        except (RuntimeError, TypeError, AttributeError):
            return []
        columns = [part.unbind() for part in parts]
        return list(columns[0] if isinstance(found, Tensor) else zip(*columns, strict=True))


def tabulated(sde, times: list[Tensor]):
    """A copy of an SDE, of its own class, that looks its methods' values at ``times`` (0-d tensors) up in a table."""
    table = copy.copy(sde)
    for name in METHODS if hasattr(sde, "log_alpha") else ():
        # An attribute of the instance hides the method of the class; object's setter also serves frozen dataclasses.
        object.__setattr__(table, name, Lookup(getattr(sde, name), times))
    return table


@contextmanager
def scheduled(model: nn.Module, times: Tensor) -> Iterator[list[Tensor]]:
    """The times (steps + 1,) as a list of 0-d tensors, whose values are looked up by every SDE inside ``model``, and by
    its score models with ``coefficients(t)``.

    A step of a sampler evaluates a hundred 0-d expressions of its two times, which would cost more than all it does to
    x. The model is put back at the end; it serves one loop at a time.
    """
    points = list(times.unbind())
    originals = [(module, module.sde) for module in model.modules() if "sde" in vars(module)]
    tables = {id(sde): tabulated(sde, points) for _, sde in originals}
    formulas: list[Any] = [m for m in score_models(model) if callable(getattr(type(m), "coefficients", None))]
    # What a loop around this one has shadowed already stays as it is.
    shadowed = [m for m in formulas if "coefficients" not in vars(m)]
    try:
        for module in shadowed:
            module.coefficients = Lookup(module.coefficients, points)
        for module, sde in originals:
            module.sde = tables[id(sde)]
        yield points
    finally:
        for module, sde in originals:
            module.sde = sde
        for module in shadowed:
            del module.coefficients
