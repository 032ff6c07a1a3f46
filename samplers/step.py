"""The sampler, a frozen dataclass of hyper-parameters with ``step``; what it remembers travels in ``carry``."""

from typing import Any, Protocol

from torch import Tensor

from samplers.protocol import Noise

Result = tuple[Tensor, Any]


class Stepper(Protocol):
    """One step from time t to time s; a corrector is a step from s to s."""

    def step(self, model, x: Tensor, t: Tensor, s: Tensor, noise: Noise, carry: Any = None) -> Result: ...


class Sampler(Stepper, Protocol):
    """A step with what ``generate`` takes unless told otherwise, its ``steps`` and ``grid``, and the ``order`` of
    convergence that the tests hold it to.

    A sampler may also have ``needs``, the protocol that it asks a process for: GaussianProcess unless told otherwise;
    and ``adaptive``, True where it chooses its own steps between two times.
    """

    @property
    def order(self) -> float: ...
    @property
    def steps(self) -> int: ...
    @property
    def grid(self) -> str: ...
