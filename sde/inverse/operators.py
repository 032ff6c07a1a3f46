"""Measurement operators A of inverse problems y = A(x) + noise: linear ones with their adjoints.

x (B, *event) and y (B, *measurement) are in data units. Any differentiable callable serves as an operator; those here
also know their adjoint A*, defined by <A x, y> = <x, A* y> for sums over the event.
"""

import abc
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sde.condition.binding import expand_rows
from sde.data.block_means import block_means
from sde.device import as_tensor, fits, without_autocast

CONVOLUTIONS = {1: nn.functional.conv1d, 2: nn.functional.conv2d, 3: nn.functional.conv3d}


class LinearOperator(nn.Module, abc.ABC):
    """A linear operator: ``forward(x)`` and ``adjoint(y)``. Both raise ValueError for an event that does not fit.
    Called, an operator takes arrays as well."""

    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(as_tensor(x))

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        # Of an operator that was made in inference mode as well, gradients are taken.
        super().register_buffer(name, None if tensor is None else as_tensor(tensor), persistent)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LinearOperator":
        # What moves a module. Weights are wider than most states, and not every device has their type.
        device = fn(torch.empty(0, device="cpu")).device
        for name, held in self._buffers.items():
            if held is not None and not fits(held, device):
                self._buffers[name] = held.float()
        return super()._apply(fn, recurse)

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """A x: (B, *event) -> (B, *measurement)."""

    @abc.abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """A* y: (B, *measurement) -> (B, *event)."""

    def rows(self, index: Tensor | slice) -> "LinearOperator":
        """The operator of some samples of a batch: itself, unless each sample has its own."""
        return self


def _check_event(what: str, shape: Sequence[int], x: Tensor) -> None:
    if tuple(x.shape[1:]) != tuple(shape):
        raise ValueError(
            f"{what} is for events of shape {tuple(shape)}, x has events of shape {tuple(x.shape[1:])}: make it for "
            "the shape of the data"
        )


class Mask(LinearOperator):
    """The entries where ``mask`` is True, in a row: (B, *event) -> (B, number of them).

    ``mask`` is boolean, True where x is observed. It has the event's shape or its last axes' alone, as (H, W) for
    (C, H, W), and then holds for all that precede them; or it is (B, *event), one for each sample. Of several masks,
    the rows of those that observe less end in zeros, up to ``width``, by default the most that one observes. A A* = 1
    on what is observed; ``adjoint`` puts zeros elsewhere. Raises ValueError for a mask of another type or shape, or one
    that observes nothing.
    """

    mask: Tensor
    index: Tensor
    filled: Tensor

    def __init__(self, mask: Tensor, event_shape: Sequence[int], width: int | None = None) -> None:
        super().__init__()
        mask = as_tensor(mask)
        event_shape, shape = tuple(event_shape), tuple(mask.shape)
        if mask.dtype != torch.bool:
            raise ValueError(f"mask has dtype {mask.dtype}: needs torch.bool, True where x is observed, as mask > 0.5")
        each = shape[1:] == event_shape
        if not each and (not shape or shape != event_shape[-len(shape) :]):
            raise ValueError(
                f"mask has shape {shape}, the data {event_shape}: needs the shape of the data or its last axes, as "
                f"{event_shape[-2:]}, or (B, {', '.join(map(str, event_shape))}), one for each sample"
            )
        flat = (mask if each else mask.expand(event_shape)).reshape(-1, math.prod(event_shape))
        counts = flat.sum(1)
        if not counts.all():
            which = f"for sample {int(counts.argmin())}" if len(counts) > 1 else "everywhere"
            raise ValueError(f"mask is False {which}: True marks what is observed, so that nothing would be")
        self.event_shape = event_shape
        self.register_buffer("mask", flat.clone().view(-1, *event_shape) if each else flat.clone().view(event_shape))
        # Numbers, as a boolean index would make a GPU's host wait to learn how many there are.
        index = (~flat).byte().argsort(dim=1, stable=True)[:, : width or int(counts.max())]
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("filled", flat.gather(1, index), persistent=False)

    def rows(self, index: Tensor | slice) -> "Mask":
        return self if len(self.index) == 1 else Mask(self.mask[index], self.event_shape, self.index.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        _check_event("mask", self.event_shape, x)
        return torch.where(self.filled.to(x.device), x.flatten(1).gather(1, expand_rows(self.index, x)), 0)

    def adjoint(self, y: Tensor) -> Tensor:
        y = as_tensor(y)
        if y.shape[1:] != self.index.shape[1:]:
            count = self.index.shape[1]
            raise ValueError(
                f"y has shape {tuple(y.shape)}, the mask observes {count} entries: needs (batch, {count}), as mask(x) "
                "makes of x"
            )
        x = y.new_zeros((len(y), math.prod(self.event_shape)))
        # Added, as the zeros that end a row are put where something may be.
        observed = torch.where(self.filled.to(y.device), y, 0)
        return x.scatter_add(1, expand_rows(self.index, y), observed).view(-1, *self.event_shape)

    def restore(self, x: Tensor, y: Tensor) -> Tensor:
        """x with its observed entries replaced by y, exactly: for the final samples, where y has no noise.

        x (B, *event) and y (B or 1, number of observed entries) in data units.
        """
        x, y = as_tensor(x), as_tensor(y)
        return torch.where(self.mask.to(x.device), self.adjoint(y.to(x)), x)


class OfReal(LinearOperator):
    """An operator of what is real of padded items: A of x with 0 where ``real`` (B, ...), booleans that expand to
    (B, *event), is False."""

    real: Tensor

    def __init__(self, operator: LinearOperator, real: Tensor) -> None:
        super().__init__()
        self.operator = operator
        self.register_buffer("real", real, persistent=False)

    def rows(self, index: Tensor | slice) -> "OfReal":
        return OfReal(self.operator.rows(index), self.real[index])

    def forward(self, x: Tensor) -> Tensor:
        return self.operator(torch.where(self.real.to(x.device), x, 0))

    def adjoint(self, y: Tensor) -> Tensor:
        return torch.where(self.real.to(y.device), self.operator.adjoint(y), 0)


class Grayscale(LinearOperator):
    """The weighted sum of the channels, (B, C, *space) -> (B, 1, *space), of which colorisation is the inverse.

    ``weights`` has a number for each channel: by default luma (ITU-R BT.601) for red, green, blue; (1 / C,) * C is the
    mean.
    """

    weights: Tensor

    def __init__(self, weights: Sequence[float] = (0.299, 0.587, 0.114)) -> None:
        super().__init__()
        self.register_buffer("weights", as_tensor(weights).double())

    def _weights(self, x: Tensor) -> Tensor:
        return self.weights.to(x).view(-1, *[1] * (x.ndim - 2))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != len(self.weights):
            raise ValueError(
                f"x has {x.shape[1]} channels, the gray value has {len(self.weights)} weights: give one per channel"
            )
        return (self._weights(x) * x).sum(1, keepdim=True)

    def adjoint(self, y: Tensor) -> Tensor:
        y = as_tensor(y)
        return self._weights(y) * y


class Blur(LinearOperator):
    """Correlation of the last axes with a kernel, of odd sizes and one to three axes, with zeros outside the event.

    All axes before them are left alone: a kernel of two axes blurs each channel of (C, H, W). (Kernel symmetric: the
    convolution.) The measurement has the shape of x.
    """

    kernel: Tensor

    def __init__(self, kernel: Tensor) -> None:
        super().__init__()
        kernel = as_tensor(kernel)
        if kernel.ndim not in CONVOLUTIONS or not all(size % 2 for size in kernel.shape):
            raise ValueError(f"kernel has shape {tuple(kernel.shape)}: needs one to three axes of odd sizes")
        self.register_buffer("kernel", kernel)

    @classmethod
    def gaussian(cls, std: float, axes: int = 2) -> "Blur":
        """The Gaussian kernel of standard deviation ``std``, in entries, cut at three of them and of sum 1."""
        if not std > 0:
            raise ValueError(f"std = {std}: needs a positive width of the blur, in entries")
        radius = max(1, round(3 * std))
        line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64, device="cpu") / std) ** 2)
        grids = torch.meshgrid(*[line / line.sum()] * axes, indexing="ij")
        return cls(torch.stack(grids).prod(0))

    def _correlate(self, x: Tensor, kernel: Tensor) -> Tensor:
        axes = kernel.ndim
        if x.ndim - 1 < axes:
            raise ValueError(f"the kernel has {axes} axes, an event {x.ndim - 1}: give a kernel of fewer axes")
        images = x.reshape(-1, 1, *x.shape[-axes:])
        padding = [size // 2 for size in kernel.shape]
        with without_autocast(x):
            return CONVOLUTIONS[axes](images, kernel.to(x)[None, None], padding=padding).view(x.shape)

    def forward(self, x: Tensor) -> Tensor:
        return self._correlate(x, self.kernel)

    def adjoint(self, y: Tensor) -> Tensor:
        y = as_tensor(y)
        return self._correlate(y, self.kernel.flip(tuple(range(self.kernel.ndim))))


class SuperResolution(LinearOperator):
    """Means over blocks of ``factor`` entries along each of the last ``axes`` axes, of which super-resolution is the
    inverse; sizes must be multiples of the factor."""

    def __init__(self, factor: int, axes: int = 2) -> None:
        super().__init__()
        if factor < 1 or axes < 1:
            raise ValueError(f"factor = {factor} and axes = {axes}: both need integers of at least 1")
        self.factor = factor
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        return block_means(x, self.factor, self.axes)

    def adjoint(self, y: Tensor) -> Tensor:
        y = as_tensor(y)
        for axis in range(-self.axes, 0):
            y = y.repeat_interleave(self.factor, axis) / self.factor
        return y


class CompressedSensing(LinearOperator):
    """``measurements`` projections of an event on random directions: y = M x, with entries of M from N(0, 1 / number of
    measurements), the same for the same ``seed``."""

    matrix: Tensor

    def __init__(self, event_shape: Sequence[int], measurements: int, seed: int = 0) -> None:
        super().__init__()
        if measurements < 1:
            raise ValueError(f"measurements = {measurements}: needs an integer of at least 1")
        self.event_shape = tuple(event_shape)
        size = math.prod(self.event_shape)
        generator = torch.Generator().manual_seed(seed)
        normal = torch.randn((measurements, size), generator=generator, dtype=torch.float32, device="cpu")
        self.register_buffer("matrix", normal / measurements**0.5)

    def forward(self, x: Tensor) -> Tensor:
        _check_event("the projection", self.event_shape, x)
        with without_autocast(x):
            return x.flatten(1) @ self.matrix.to(x).T

    def adjoint(self, y: Tensor) -> Tensor:
        y = as_tensor(y)
        with without_autocast(y):
            return (y @ self.matrix.to(y)).view(-1, *self.event_shape)
