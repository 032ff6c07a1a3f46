"""The invertible map between data units, which users see, and model units, in which the process runs."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Transform:
    """model = (data - shift) / scale, per channel (the first event axis) or with one number for all.

    ``levels`` declares data quantised to the integers 0 .. levels - 1: uniform noise in [0, 1) is added before
    encoding, so that the density is over [0, levels), and samples are floored back to integers. None means continuous
    data.
    """

    shift: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    levels: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shift", tuple(self.shift))
        object.__setattr__(self, "scale", tuple(self.scale))
        if len(self.shift) != len(self.scale) or not all(s > 0 for s in self.scale):
            raise ValueError(f"shift {self.shift} and scale {self.scale}: need the same length and positive scales")
        if self.levels is not None and self.levels < 2:
            raise ValueError(f"levels = {self.levels}: needs at least 2, or None for continuous data")

    @classmethod
    def of_levels(cls, levels: int) -> "Transform":
        """Maps [0, levels), the dequantised range of integer data, onto [-1, 1)."""
        return cls((levels / 2,), (levels / 2,), levels)

    @classmethod
    def standardise(cls, x: Tensor) -> "Transform":
        """Zero mean and unit standard deviation per channel of x (n, *event), measured in float64."""
        flat = x.double().reshape(len(x), x.shape[1] if x.ndim > 1 else 1, -1)
        std = flat.std(dim=(0, 2), correction=0)
        if not (std > 0).all():
            raise ValueError(f"channel {int(std.argmin())} of the data is constant: leave it out, it has no density")
        return cls(tuple(flat.mean(dim=(0, 2)).tolist()), tuple(std.tolist()))

    def _channels(self, values: tuple[float, ...], x: Tensor) -> Tensor:
        if len(values) == 1:
            return torch.tensor(values[0], dtype=torch.float64)
        return x.new_tensor(values).view(-1, *[1] * (x.ndim - 2))

    def encode(self, x: Tensor) -> Tensor:
        """Data units to model units; x (B, *event)."""
        return (x - self._channels(self.shift, x)) / self._channels(self.scale, x)

    def decode(self, x: Tensor) -> Tensor:
        """Model units to data units, still continuous; x (B, *event)."""
        return x * self._channels(self.scale, x) + self._channels(self.shift, x)

    def dequantise(self, x: Tensor, u: Tensor) -> Tensor:
        """Integer data x plus uniform noise u in [0, 1): the density of x + u bounds the probability of x."""
        return x + u if self.levels else x

    def quantise(self, x: Tensor) -> Tensor:
        """The inverse of ``dequantise``: floor to the integers 0 .. levels - 1; continuous data pass unchanged."""
        return x.floor().clamp(0, self.levels - 1) if self.levels else x

    def log_det(self, event_shape: tuple[int, ...]) -> float:
        """log |d model / d data| for one item, to be added to a log-density in model units."""
        repeats = math.prod(event_shape) / len(self.scale)
        return -repeats * sum(math.log(s) for s in self.scale)
