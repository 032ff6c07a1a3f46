"""Means of blocks: what super-resolution undoes."""

from torch import Tensor

from sde.data.block_means import block_means
from sde.device import as_tensor
from sde.inverse.operators.base import LinearOperator


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
