"""The learned transform: data units outside, standardized latents of a frozen autoencoder inside."""

import copy
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from sde.autoencoder.base import Autoencoder
from sde.data.transform import Transform
from sde.device import as_tensor, double, send, wide

NUMBERS_AT_ONCE = 2**21
"""Numbers of the items that an autoencoder is given at a time."""


class LatentTransform(nn.Module):
    """encode(x) = (mean(outer.encode x) - shift) / scale, and decode its way back through the decoder.

    ``outer`` leads from data units to those of the autoencoder. The buffers ``shift`` and ``scale``, one number per
    channel of the latents (their first axis), are 0 and 1 until they are measured. The autoencoder is frozen: its
    parameters are not trained, and it stays in eval mode. There is no ``log_det``; what stands in its place is the
    pair of ``posterior`` and ``log_likelihood``.
    """

    learned: ClassVar[bool] = True
    """Whether it has another shape inside, where statistics have to be measured."""
    shift: Tensor
    scale: Tensor

    def __init__(self, autoencoder: Autoencoder, outer: Transform | None = None) -> None:
        super().__init__()
        self.autoencoder, self.outer = autoencoder.requires_grad_(False), outer or Transform()
        channels = autoencoder.latent_shape[0]
        self.register_buffer("shift", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode: what is frozen computes in training as it does in sampling."""
        return super().train(False)

    def __str__(self) -> str:
        return f"latents {self.autoencoder.latent_shape} of a {type(self.autoencoder).__name__} of {self.outer}"

    @property
    def num_levels(self) -> int | None:
        """Those of the data."""
        return self.outer.num_levels

    @property
    def far(self) -> bool:
        """Whether data units need float64, as of ``outer``."""
        return self.outer.far

    @property
    def dtype(self) -> torch.dtype:
        """The type that holds data units."""
        return self.outer.dtype

    def continuous(self) -> "LatentTransform":
        """The same for continuous data, with the same autoencoder."""
        other = copy.copy(self)
        other.outer = self.outer.continuous()
        return other

    @property
    def digest(self) -> str:
        """A text that is equal where transforms are: of the weights, what was measured, and ``outer``."""
        found = hashlib.sha256(self.outer.digest.encode())
        for name, value in self.state_dict().items():
            found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return f"LatentTransform({type(self.autoencoder).__name__}, {found.hexdigest()})"

    @property
    def _rows_at_once(self) -> int:
        return max(1, NUMBERS_AT_ONCE // math.prod(self.autoencoder.event_shape))

    def _in_parts(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """function(x), row by row where x has many: of convolutions each row takes many times its size."""
        # A program that is exported is one for any number of rows.
        if x.requires_grad or torch.compiler.is_exporting() or len(x) <= self._rows_at_once:
            return function(x)
        return torch.cat([function(part) for part in x.split(self._rows_at_once)])

    def inner_shape(self, event_shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the latents of items of this shape. Raises ValueError where the autoencoder does not take it."""
        return tuple(self.autoencoder.inner_shape(event_shape))

    def _per_channel(self, values: Tensor, x: Tensor) -> Tensor:
        return values.to(x).view(-1, *[1] * (x.ndim - 2))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z | x), both (B, *inner) in model units and on the device of x (B, *event),
        in data units and dequantized; a deterministic encoder's are zeros."""
        x = as_tensor(x)
        # Of other channels ``outer`` would make some that fit.
        self.inner_shape(x.shape[1:])
        return self.inner_posterior(self.outer.encode(x))

    def inner_posterior(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """``posterior`` of items y (B, *event) that ``outer`` has encoded."""
        self.inner_shape(y.shape[1:])
        own = send(y, self.shift.device).to(self.shift.dtype)
        mean, std = self._in_parts(lambda part: torch.stack(self.autoencoder.encode(part), 1), own).unbind(1)
        shift, scale = self._per_channel(self.shift, mean), self._per_channel(self.scale, mean)
        return send((mean - shift) / scale, y.device), send(std / scale, y.device)

    def encode(self, x: Tensor) -> Tensor:
        """The mean of the posterior, (B, *inner)."""
        return self.posterior(x)[0]

    def decode(self, x: Tensor) -> Tensor:
        """Model units (B, *inner) to data units (B, *event), still continuous. They are on the CPU where they need
        float64 and the device of x has none."""
        x = as_tensor(x)
        z = send(x, self.shift.device).to(self.shift.dtype)
        z = z * self._per_channel(self.scale, z) + self._per_channel(self.shift, z)
        return self.outer.decode(send(self._in_parts(self.autoencoder.decode, z), x.device))

    def dequantize(self, x: Tensor, u: Tensor | float) -> Tensor:
        """That of ``outer``."""
        return self.outer.dequantize(x, u)

    def quantize(self, x: Tensor) -> Tensor:
        """That of ``outer``."""
        return self.outer.quantize(x)

    def cells_per_unit(self, event_shape: Sequence[int]) -> Tensor:
        """Raises ValueError: no length inside is one of data units."""
        raise ValueError("latents of an autoencoder have no length in data units: there is no log_det to ask it with")

    def log_det(self, event_shape: Sequence[int]) -> None:
        """None: there is no density of the data that a flow in latents could tell."""

    @property
    def noise_std(self) -> Tensor:
        """The standard deviation of p(x | z) in data units, float64 on the CPU, one number per channel of x; NaN where
        nobody has measured it."""
        return self.autoencoder.noise_std.cpu().double() * double(self.outer.scale)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) (B,) in nats, float64, of data x (B, *event) and latents z (B, *inner) in model units.

        p(x | z) is N(decode(z), noise_std^2) in data units; of quantized data the probability of the cell of x under
        it, whose first and last cell reach to infinity, so that the levels have all of it. Raises ValueError where
        ``noise_std`` was never measured, and where it is 0.
        """
        if not bool((self.noise_std > 0).all()):
            why = (
                "was never measured: measure it over items first"
                if bool(self.noise_std.isnan().any())
                else "is 0: an autoencoder that returns items exactly leaves no density around them"
            )
            raise ValueError(f"noise_std, the standard deviation of the data around what is decoded, {why}")
        mean, x = wide(self.decode(z)), wide(x)
        std = self._per_channel(self.noise_std, mean)
        if not self.num_levels:
            terms = -0.5 * ((x - mean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi)
        else:
            low = torch.where(x <= 0, -torch.inf, (x - mean) / std)
            high = torch.where(x >= self.num_levels - 1, torch.inf, (x + 1 - mean) / std)
            terms = log_interval(low, high)
        return terms.flatten(1).sum(1)


def log_interval(low: Tensor, high: Tensor) -> Tensor:
    """log(Phi(high) - Phi(low)) for low < high, without cancellation in either tail."""
    # Mirrored to the left tail, where log_ndtr keeps its digits.
    flip = low + high > 0
    low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
    top, bottom = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    return top + torch.log(-torch.expm1(bottom - top))
