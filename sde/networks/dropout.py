"""Dropout whose masks cost little on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BITS = 16
"""Random bits for an entry: p is rounded to a multiple of 2^-16."""


class Dropout(nn.Module):
    """In training, each entry of x is zero with probability p, and else x / (1 - p) (Srivastava et al. 2014).

    On a CPU a random word of 64 bits serves four entries, where ``nn.Dropout`` draws one or more for each. Raises
    ValueError for p below 0 or above 1.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"dropout = {p}: needs a probability from 0 to 1")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        dropped = round(self.p * 2**BITS)
        if not self.training or not dropped:
            return x
        if x.device.type != "cpu" or dropped == 2**BITS:
            return F.dropout(x, self.p)
        like = torch.empty_like(x)
        words = torch.empty(-(-x.numel() * BITS // 64), dtype=torch.int64, device="cpu").random_(-(2**63), None)
        lanes = words.view(torch.int16)[: x.numel()].as_strided(like.shape, like.stride())
        kept = (lanes >= dropped - 2 ** (BITS - 1)).to(x.dtype)
        return x * kept.mul_(1 / (1 - dropped / 2**BITS))

    def extra_repr(self) -> str:
        return f"p={self.p}"
