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
    ``asks``, the protocol that it asks of a model: ScoreModel unless it is FlowMap;
    ``adaptive``, True where it makes steps of its own between two times, and calls the model for some rows at a time,
    with ``tolerances``, the names of the options that say how right they are to be;
    ``from_open_end``, True where its step is right from an open noise end, too, where f and g^2 are infinite;
    and ``last_call(model, x, t, noise, carry)``, what a run of it ends with in the place of the process's: one call.
    """

    @property
    def order(self) -> float: ...
    @property
    def steps(self) -> int: ...
    @property
    def grid(self) -> str: ...
