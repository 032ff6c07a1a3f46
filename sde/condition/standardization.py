"""Standardization of conditions that are numbers."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sde.condition.tree import FEATURES, Condition


class Standardization(nn.Module):
    """Numbers among the conditions from data units to model units: (c - shift) / scale for each feature; null stays.

    ``moments`` are the lists of the features' shifts and scales, by kind.
    """

    def __init__(self, moments: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> None:
        super().__init__()
        self.kinds = tuple(moments)
        for kind, values in moments.items():
            for name, value in zip(("shift", "scale"), values, strict=True):
                # Not in state dicts: what describes the model has them.
                self.register_buffer(f"{kind}_{name}", torch.tensor(value), persistent=False)

    def forward(self, cond: Condition | None) -> Condition | None:
        if not self.kinds or cond is None:
            return cond
        # What is bound stays bound.
        return type(cond)({kind: self._encoded(kind, c) if kind in self.kinds else c for kind, c in cond.items()})

    def _encoded(self, kind: str, c: Tensor) -> Tensor:
        shift, scale = (
            getattr(self, f"{kind}_{name}").view(-1, *[1] * (c.ndim - 1 - FEATURES[kind]))
            for name in ("shift", "scale")
        )
        return (c - shift) / scale
