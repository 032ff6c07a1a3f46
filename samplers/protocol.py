"""The protocol: all that samplers and likelihood ask of a model, its process, its transform and their noise.

Nothing needs to inherit from these classes: what has the members is one. Shapes: a state x is one tensor (B, *inner) of
any dtype, data are (B, *event), t is () or (B,). A process packs and pads what it has into one event shape per run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn


class Noise(Protocol):
    """Random numbers of samples, one row per sample. A sample's numbers depend neither on its batch-mates nor on how
    far its row is padded."""

    def __call__(self, x: Tensor) -> Tensor:
        """Standard normal numbers in the shape and dtype and on the device of x, like ``torch.randn_like``."""
        ...

    def uniform(self, x: Tensor) -> Tensor:
        """Numbers in [0, 1) in the shape and on the device of x, in float64 whatever the dtype of x."""
        ...

    def between(self, t: Tensor, s: Tensor) -> "Noise":
        """The noise of one step from t to s, both 0-d: the loop asks before every step."""
        ...


class Process(Protocol):
    """How data become noise, from ``t_min`` to ``t_max``: what the loop, ``generate`` and ``compare`` ask of any.

    A process may also have ``points(times)``, which makes a run's times 0-d tensors as the process likes them.
    """

    @property
    def t_min(self) -> float: ...
    @property
    def t_max(self) -> float: ...

    def state_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The dtype of states, for a model that computes in ``dtype``."""
        ...

    def sample_prior(self, like: Tensor, noise: Noise, t: Tensor | None = None) -> Tensor:
        """A draw where no data are left, at t (``t_max`` unless told otherwise): a state of the shape (B, *inner) and
        on the device of ``like``, whose dtype is the model's."""
        ...

    def noised(self, x0: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """A draw of the state at t from data x0 (B, *inner) in model units."""
        ...

    def prior_log_prob(self, x: Tensor) -> Tensor:
        """Log-density or log-probability (B,) in nats of states at ``t_max``."""
        ...

    def constrain(self, noise: Tensor) -> Tensor:
        """Normal numbers as this process may have them: as they are, or for example with their center of mass removed.
        Called twice it must do what it does once."""
        ...

    def last_call(self, model: Any, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        """What a run ends with, from its state x at its last time t: one call of the model."""
        ...

    def valid(self, x: Tensor) -> Tensor:
        """Which rows of x are states, (B,) bool on the device of x."""
        ...

    def describe(self, t: Tensor) -> str:
        """A 0-d time as messages name it, as in "t = 0.5, sigma = 0.71"."""
        ...


class GaussianProcess(Process, Protocol):
    """x_t = alpha(t) x_0 + sigma(t) z, dx = f(t) x dt + sqrt(g2(t)) dw. Every method of t is elementwise.

    A process with alpha(t_max) = 0 also has ``open_end`` = True; ``t_finite``, the last time at which f and g2 are
    finite, where x is as good as that at t_max; and ``t_signal``, the time of a small alpha / sigma at which grids of
    noise levels go on after t_max. Its ``log_snr`` is finite at t_max all the same, that of a noise level beyond which
    numbers do not tell x from noise.
    """

    def log_alpha(self, t: Tensor) -> Tensor: ...
    def alpha(self, t: Tensor) -> Tensor: ...
    def sigma(self, t: Tensor) -> Tensor: ...

    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2), strictly decreasing."""
        ...

    def noise_level(self, t: Tensor) -> Tensor:
        """sigma / alpha."""
        ...

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """The time of a log_snr that the process has; samplers ask for no other."""
        ...

    def t_of_noise_level(self, noise_level: Tensor) -> Tensor: ...
    def f(self, t: Tensor) -> Tensor: ...
    def g2(self, t: Tensor) -> Tensor: ...

    def perturb(self, x0: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """alpha x_0 + sigma z."""
        ...

    def prior_std(self) -> float:
        """sigma(t_max)."""
        ...

    def level(self, t: Tensor) -> Any:
        """What steps and score models put into their formulas: an object with log_alpha, alpha, sigma, log_snr,
        noise_level, f, g2, and alpha_rate and sigma_rate, the derivatives of alpha and sigma by t, at t; Python floats
        of one time on the CPU, else tensors of the shape of t."""
        ...


class Transform(Protocol):
    """Data units outside, model units inside; part of the model. Rows of a batch are items."""

    @property
    def num_levels(self) -> int | None:
        """Data are the integers 0 .. num_levels - 1, each of which stands for its cell [k, k + 1); or None: continuous
        data."""
        ...

    @property
    def digest(self) -> str:
        """A text that is equal where transforms are."""
        ...

    def inner_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        """The shape inside of an event of this shape outside."""
        ...

    def encode(self, x: Tensor) -> Tensor:
        """(B, *event) in data units to (B, *inner)."""
        ...

    def decode(self, x: Tensor) -> Tensor:
        """(B, *inner) to (B, *event) in data units, not yet quantized."""
        ...

    def dequantize(self, x: Tensor, u: Tensor | float) -> Tensor:
        """x + u within the cells of quantized data, 0 <= u < 1; continuous data as they are."""
        ...

    def quantize(self, x: Tensor) -> Tensor:
        """The integers whose cells hold x; continuous data as they are."""
        ...

    def cells_per_unit(self, event_shape: Sequence[int]) -> Tensor:
        """How many cells a model unit is long, in each entry: (1, *event) in float64 on the CPU; of continuous data,
        how many data units. Asked with a ``log_det`` alone, for quantized data and for padded ones."""
        ...

    def log_det(self, event_shape: Sequence[int]) -> float | None:
        """log |d inner / d data| of one item, or None where there is none, as for another shape inside."""
        ...


class LatentVariables(Transform, Protocol):
    """A transform whose inner states are latent variables: what an evidence bound asks beside ``encode`` and
    ``decode``."""

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z | x), both (B, *inner) in model units, of x (B, *event) in data units and
        dequantized: a normal distribution of independent entries."""
        ...

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) (B,) in nats of data x (B, *event) and latents z (B, *inner) in model units: a density in data
        units, or of quantized data the probability of the integers x."""
        ...


class StateModel(Protocol):
    """A torch module of the states of a process: what samplers ask of score models and of flow maps. Each returns one
    tensor whose rows are those of x.

    Of ``nn.Module`` are asked: modules, parameters, buffers, training and eval, register_forward_hook. What marks such
    a model among other modules is ``sde`` together with ``rows``. A model may leave out ``transform`` (the identity),
    ``null_trained`` (True) and ``event_shape`` (None). It may also have ``bodies()``, the modules inside that are worth
    compiling: each is called with tensors whose rows are samples, which alone may differ in number from call to call.
    Of models that it wraps it need not speak.
    """

    training: bool

    @property
    def sde(self) -> Process: ...
    @property
    def transform(self) -> Transform: ...

    @property
    def null_trained(self) -> bool:
        """Whether it can be called as it is; False where a condition has to be bound to it first."""
        ...

    @property
    def event_shape(self) -> tuple[int, ...] | None:
        """The shape of an event outside, in data units, where known."""
        ...

    def rows(self, index: Tensor | slice) -> Self:
        """The model for some rows of the batch that it is bound to; models that are bound to nothing return
        themselves."""
        ...

    def modules(self) -> Iterator[nn.Module]: ...
    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...
    def buffers(self, recurse: bool = True) -> Iterator[Tensor]: ...
    def eval(self) -> Self: ...
    def register_forward_hook(self, hook: Any, *, with_kwargs: bool = False) -> Any: ...


class ScoreModel(StateModel, Protocol):
    """What is called with (x, t). It may leave out ``normalized`` (True), too."""

    @property
    def normalized(self) -> bool:
        """Whether the scores are those of one normalized density at every time, as guided ones are not."""
        ...

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Of a Gaussian process the posterior mean E[x_0 | x_t = x], of the shape of x; of others what their samplers
        and ``Process.last_call`` take."""
        ...


class GaussianScoreModel(ScoreModel, Protocol):
    """What a Gaussian process asks beside it: three views of the posterior mean D, of the shape of x."""

    @property
    def sde(self) -> GaussianProcess: ...

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """grad log p_t(x) = (alpha D - x) / sigma^2."""
        ...

    def noise(self, x: Tensor, t: Tensor) -> Tensor:
        """(x - alpha D) / sigma."""
        ...

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """f x - g2 score / 2."""
        ...


class FlowMap(StateModel, Protocol):
    """Where the probability flow of a Gaussian process leads, as one function of both times. What marks it is
    ``jump``."""

    @property
    def sde(self) -> GaussianProcess: ...

    def __call__(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """x_s, of the shape of x: the end at time s <= t of the flow that begins with x at time t."""
        ...

    def jump(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The same, as a call of the module."""
        ...


@dataclass(frozen=True)
class Identity:
    """The transform of a model without one: continuous data in model units."""

    num_levels = None
    digest = "identity"

    def inner_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        return tuple(event_shape)

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, x: Tensor) -> Tensor:
        return x

    def dequantize(self, x: Tensor, u: Tensor | float) -> Tensor:
        return x

    def quantize(self, x: Tensor) -> Tensor:
        return x

    def cells_per_unit(self, event_shape: Sequence[int]) -> Tensor:
        return torch.ones(1, *event_shape, dtype=torch.float64, device="cpu")

    def log_det(self, event_shape: Sequence[int]) -> float:
        return 0.0


IDENTITY = Identity()


def transform_of(model: Any) -> Transform:
    """The transform of a score model; the identity for a model that has none."""
    return getattr(model, "transform", IDENTITY) or IDENTITY


@cache
def members(protocol: type) -> frozenset[str]:
    """The names of the members of a protocol, those that every object has left out."""
    return frozenset(name for kind in protocol.__mro__ for name in vars(kind) if not name.startswith("_"))


def missing(thing: object, protocol: type) -> list[str]:
    """What ``thing`` lacks of a protocol, in alphabetic order."""
    return sorted(name for name in members(protocol) if not hasattr(thing, name))


def needs_of(sampler: object) -> type:
    """The protocol that a sampler needs of a process: its ``needs``, GaussianProcess unless it names another."""
    return getattr(sampler, "needs", GaussianProcess)


def suits(sampler: object, process: object) -> bool:
    """Whether a sampler runs on a process."""
    return not missing(process, needs_of(sampler))


def asks_of(sampler: object) -> type:
    """The protocol that a sampler asks of a model: its ``asks``, ScoreModel unless it names FlowMap."""
    return getattr(sampler, "asks", ScoreModel)


def is_flow_map(model: object) -> bool:
    """Whether a model is a flow map, and no score model."""
    return hasattr(model, "jump")
