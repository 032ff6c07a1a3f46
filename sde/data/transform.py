"""The transform: an invertible map between data units, which users see, and model units, in which the process runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from sde.data.statistics import Statistics, measure
from sde.device import as_tensor, double, send, wide
from sde.rounding import far_from_zero


class TransformLike(Protocol):
    """What data and models ask of a transform: a ``Transform``, or a learned one, with other shapes inside."""

    learned: ClassVar[bool]

    @property
    def num_levels(self) -> int | None: ...
    @property
    def far(self) -> bool: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def digest(self) -> str: ...
    @property
    def outer(self) -> "Transform": ...

    def continuous(self) -> "TransformLike": ...
    def inner_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]: ...
    def encode(self, x: Tensor) -> Tensor: ...
    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor | None]: ...
    def inner_posterior(self, y: Tensor) -> tuple[Tensor, Tensor | None]: ...
    def decode(self, x: Tensor) -> Tensor: ...
    def dequantize(self, x: Tensor, u: Tensor | float) -> Tensor: ...
    def quantize(self, x: Tensor) -> Tensor: ...
    def cells_per_unit(self, event_shape: Sequence[int]) -> Tensor: ...
    def log_det(self, event_shape: Sequence[int]) -> float | None: ...


def check_elementwise(transform: TransformLike, what: str) -> None:
    """Raise ValueError for a learned transform, inside which entries are none of the data's; ``what`` needs those."""
    if transform.learned:
        raise ValueError(
            f"{what} acts on the entries of an item one by one, and the states of this model are latents of an "
            "autoencoder, whose entries are none of the item's"
        )


@dataclass(frozen=True)
class Transform:
    """model = (data - shift) / scale, per channel (the first event axis) or with one number for all.

    ``num_levels`` declares data quantized to the integers 0 .. num_levels - 1: uniform noise in [0, 1) is added before
    encoding, so that the density is over [0, num_levels), and samples are floored back to integers. None means
    continuous data.
    """

    learned: ClassVar[bool] = False
    """Whether statistics inside have to be measured there, as those of a learned transform."""

    shift: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    num_levels: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shift", tuple(self.shift))
        object.__setattr__(self, "scale", tuple(self.scale))
        if len(self.shift) != len(self.scale) or not all(s > 0 for s in self.scale):
            raise ValueError(f"shift {self.shift} and scale {self.scale}: need the same length and positive scales")
        if self.num_levels is not None and self.num_levels < 2:
            raise ValueError(f"num_levels = {self.num_levels}: needs at least 2, or None for continuous data")

    @classmethod
    def of_levels(cls, levels: int) -> "Transform":
        """Maps [0, levels), the dequantized range of integer data, onto [-1, 1)."""
        return cls((levels / 2,), (levels / 2,), levels)

    @classmethod
    def of_values(cls, levels: int) -> "Transform":
        """Maps the values 0 .. levels - 1 of integer data onto [-1, 1]: to each the middle of its cell."""
        return cls((levels / 2,), ((levels - 1) / 2,), levels)

    @classmethod
    def standardize(cls, x: Tensor | Statistics) -> "Transform":
        """Zero mean and unit standard deviation per channel of x (n, *event), or of data with these statistics.

        Raises ValueError for a channel that is constant.
        """
        statistics = x if isinstance(x, Statistics) else measure(as_tensor(x))
        (mean, std), (low, high) = statistics.channels(), statistics.ranges()
        constant = ((low == high) | (std == 0)).nonzero().flatten().tolist()
        if constant:
            count = f" ({len(constant)} channels are)" if len(constant) > 1 else ""
            raise ValueError(
                f"channel {constant[0]} of the data is constant{count}, at {mean[constant[0]]:g}: leave it out, it has "
                "no density"
            )
        return cls(tuple(mean.tolist()), tuple(std.tolist()))

    @property
    def outer(self) -> "Transform":
        """What leads from data units to others of the same shape: itself, of a learned one its first part."""
        return self

    @cached_property
    def far(self) -> bool:
        """Whether data units need float64, since float32 has too few digits so far from zero: what is decoded has them,
        and what is encoded is centered in float64 and comes as float32."""
        return far_from_zero(self.shift, self.scale)

    def continuous(self) -> "Transform":
        """The same for continuous data, as of quantized ones that lie anywhere in their cells."""
        return replace(self, num_levels=None)

    @property
    def dtype(self) -> torch.dtype:
        """The type that holds data units."""
        return torch.float64 if self.far else torch.float32

    def _channels(self, values: tuple[float, ...], x: Tensor) -> Tensor:
        # A 0-d CPU tensor multiplies a tensor of any device as a scalar, without a transfer.
        if len(values) == 1:
            return double(values[0])
        return send(torch.tensor(values, dtype=x.dtype, device="cpu"), x.device).view(-1, *[1] * (x.ndim - 2))

    def _encoded(self, x: Tensor) -> Tensor:
        return (x - self._channels(self.shift, x)) / self._channels(self.scale, x)

    def encode(self, x: Tensor) -> Tensor:
        """Data units to model units; x (B, *event)."""
        x = as_tensor(x)
        return send(self._encoded(wide(x)).float(), x.device) if self.far else self._encoded(x)

    def posterior(self, x: Tensor) -> tuple[Tensor, None]:
        """``encode(x)`` and None: where a learned transform has mean and standard deviation, this one has a value."""
        return self.encode(x), None

    def inner_posterior(self, y: Tensor) -> tuple[Tensor, None]:
        """``posterior`` of items that ``outer`` has encoded: y and None."""
        return y, None

    def decode(self, x: Tensor) -> Tensor:
        """Model units to data units, still continuous; x (B, *event). They are on the CPU where they need
        float64 and the device of x has none."""
        x = as_tensor(x)
        x = wide(x) if self.far else x
        return x * self._channels(self.scale, x) + self._channels(self.shift, x)

    def dequantize(self, x: Tensor, u: Tensor | float) -> Tensor:
        """Integer data x plus uniform noise u in [0, 1): the density of x + u bounds the probability of x."""
        x = as_tensor(x)
        return x + u if self.num_levels else x

    def moments(self, mean: Tensor, var: Tensor, dequantized: bool = True) -> tuple[Tensor, Tensor]:
        """Mean and variance in model units of data that have these in data units, ``dequantized`` by uniform noise or
        in the middle of their cells; both (*event)."""
        mean, var = self.dequantize(mean[None], 0.5), var[None] + (1 / 12 if self.num_levels and dequantized else 0)
        return self._encoded(mean)[0], (var / self._channels(self.scale, var) ** 2)[0]

    def quantize(self, x: Tensor) -> Tensor:
        """The inverse of ``dequantize``: floor to the integers 0 .. num_levels - 1; continuous data pass unchanged."""
        x = as_tensor(x)
        return x.floor().clamp(0, self.num_levels - 1) if self.num_levels else x

    @property
    def digest(self) -> str:
        """A text that is equal where transforms are. What is stored under it keeps it: it still says "levels"."""
        return f"Transform(shift={self.shift}, scale={self.scale}, levels={self.num_levels})"

    def inner_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        """The shape inside of an event of this shape outside: the same."""
        return tuple(event_shape)

    def cells_per_unit(self, event_shape: Sequence[int]) -> Tensor:
        """Data units in a model unit, in each entry: (1, *event), float64, on the CPU."""
        one = torch.ones(1, *event_shape, dtype=torch.float64, device="cpu")
        return self.decode(one) - self.decode(0 * one)

    def log_det(self, event_shape: Sequence[int]) -> float:
        """log |d model / d data| for one item, to be added to a log-density in model units."""
        repeats = math.prod(event_shape) / len(self.scale)
        return -repeats * sum(math.log(s) for s in self.scale)
