"""An operator of padded items, of what is real of them."""

import torch
from torch import Tensor

from sde.inverse.operators.base import LinearOperator


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
