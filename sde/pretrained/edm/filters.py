"""The filters of EDM's networks: buffers beside the weights, of the option ``resample_filter``."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def filters_of(tensors: Mapping[str, Tensor]) -> frozenset[str]:
    """Their names."""
    return frozenset(name for name in tensors if name.endswith("resample_filter"))


def check_taps(tensors: Mapping[str, Tensor], taps: Sequence[float]) -> None:
    """Refuse filters (1, 1, n, n) that are not f f^T / (sum f)^2 of these taps f, up to rounding; names and shapes
    alone, on torch's meta device, are not looked into."""
    f = torch.tensor([float(tap) for tap in taps], dtype=torch.float64)
    wanted = torch.outer(f, f) / f.sum() ** 2
    for name in sorted(filters_of(tensors)):
        found = tensors[name].squeeze()
        if found.is_meta and found.shape == wanted.shape:
            continue
        if found.shape != wanted.shape or not torch.allclose(found.double(), wanted, rtol=1e-3, atol=1e-6):
            # f f^T / (sum f)^2 sums to f / sum f over its rows.
            there = (found.double().sum(0) / found.double().sum()).tolist() if found.ndim == 2 else tuple(found.shape)
            raise ValueError(
                f"the file's filter {name} is of taps in the ratio {there}, its resample_filter is {tuple(taps)}"
            )
