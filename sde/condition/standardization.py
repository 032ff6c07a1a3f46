"""Standardization of conditions that are numbers."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sde.condition.tree import Condition, feature_axis
from sde.rounding import far_from_zero


class Standardization(nn.Module):
    """Numbers among the conditions from data units to model units: (c - shift) / scale for each feature; null stays.

    ``moments`` are the lists of the features' shifts and scales, by kind. Features that are far from zero are centered
    in float64.
    """

    def __init__(self, moments: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> None:
        super().__init__()
        self.kinds = tuple(moments)
        for kind, values in moments.items():
            shift, scale = (torch.tensor(value) for value in values)
            if far_from_zero(*values):
                shift = torch.tensor(values[0], dtype=torch.float64)
            # Not in state dicts: what describes the model has them.
            self.register_buffer(f"{kind}_shift", shift, persistent=False)
            self.register_buffer(f"{kind}_scale", scale, persistent=False)

    def forward(self, cond: Condition | None) -> Condition | None:
        if not self.kinds or cond is None:
            return cond
        # What is bound stays bound.
        return type(cond)({kind: self._encoded(kind, c) if kind in self.kinds else c for kind, c in cond.items()})

    def _encoded(self, kind: str, c: Tensor) -> Tensor:
        shift, scale = (
            getattr(self, f"{kind}_{name}").view(-1, *[1] * (c.ndim - 1 - feature_axis(kind)))
            for name in ("shift", "scale")
        )
        return (c.to(shift.dtype) - shift).to(scale.dtype) / scale
