"""What a sampler is: a frozen dataclass of hyper-parameters with ``step``; what it remembers travels in ``carry``."""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

Noise = Callable[[Tensor], Tensor]
"""Like ``torch.randn_like``. A noise may also have ``between(t, s)``, which returns the noise of one step: the loop
asks it before every step, and gives the sampler what it returns."""


Result = tuple[Tensor, Any]


class Stepper(Protocol):
    """One step from time t to time s; a corrector is a step from s to s."""

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise: Noise, carry: Any = None) -> Result: ...


class Sampler(Stepper, Protocol):
    """A step with what ``generate`` takes unless told otherwise, its ``steps`` and ``grid``, and the ``order`` of
    convergence that the tests hold it to."""

    @property
    def order(self) -> float: ...
    @property
    def steps(self) -> int: ...
    @property
    def grid(self) -> str: ...
