"""Random projections of compressed sensing."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sde.device import as_tensor, without_autocast
from sde.inverse.operators.base import LinearOperator, check_event


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
        check_event("the projection", self.event_shape, x)
        with without_autocast(x):
            return x.flatten(1) @ self.matrix.to(x).T

    def adjoint(self, y: Tensor) -> Tensor:
        y = as_tensor(y)
        with without_autocast(y):
            return (y @ self.matrix.to(y)).view(-1, *self.event_shape)
