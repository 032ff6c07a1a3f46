"""The blur: a convolution with a kernel."""

import torch
from torch import Tensor, nn

from sde.device import as_tensor, without_autocast
from sde.inverse.operators.base import LinearOperator

CONVOLUTIONS = {1: nn.functional.conv1d, 2: nn.functional.conv2d, 3: nn.functional.conv3d}


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
