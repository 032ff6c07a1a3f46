"""The gray image of a colored one."""

from collections.abc import Sequence

from torch import Tensor

from sde.device import as_tensor
from sde.inverse.operators.base import LinearOperator


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
