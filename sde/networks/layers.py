"""What networks of several kinds are built of."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED_CONVOLUTIONS = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
"""By the number of axes of space."""


def zero_init(layer: nn.Module) -> nn.Module:
    """The layer with all its parameters at zero, so that what it feeds starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def split_shape(event_shape: Sequence[int], network: str) -> tuple[int, list[int]]:
    """event_shape (channels, *space) -> channels and space; ValueError unless there are 1 to 3 axes of space."""
    if len(event_shape) - 1 not in CONVOLUTIONS:
        raise ValueError(
            f"a {network} takes items of shape (channels, *space) with 1 to 3 axes of space, not "
            f"{tuple(event_shape)}: use network mlp for vectors"
        )
    channels, *space = event_shape
    return channels, space


def check_input(x: Tensor, channels: int, dims: int) -> None:
    """ValueError unless x is (B, channels, *space) with ``dims`` axes of space."""
    if x.ndim != dims + 2 or x.shape[1] != channels:
        raise ValueError(
            f"x has shape {tuple(x.shape)}: this network takes (B, {channels}, *space) with {dims} "
            f"{'axis' if dims == 1 else 'axes'} of space; move channels that are last to axis 1"
        )


def check_choice(key: str, value: str, allowed: Iterable[str]) -> None:
    """ValueError unless the value of an option is allowed."""
    if value not in allowed:
        raise ValueError(f"{key} = {value!r}: needs one of {', '.join(allowed)}")


def check_counts(**options: int | Sequence[int]) -> None:
    """ValueError unless every option is a number from 1, or several."""
    for key, value in options.items():
        if min(value if isinstance(value, Sequence) else (value,), default=0) < 1:
            raise ValueError(f"{key} = {value}: needs whole numbers from 1")


def pad(x: Tensor, factor: int) -> Tensor:
    """x with each axis of space zero-padded at its end to a multiple of ``factor``."""
    missing = [-size % factor for size in x.shape[2:]]
    return F.pad(x, [amount for m in reversed(missing) for amount in (0, m)]) if any(missing) else x


def crop(x: Tensor, space: Sequence[int]) -> Tensor:
    """x (B, channels, *larger) without what ``pad`` added to ``space``."""
    region: tuple[Any, ...] = (..., *(slice(size) for size in space))
    return x[region]


def run(module: nn.Module, *inputs: Tensor | tuple[Tensor, ...] | None, recompute: bool) -> Tensor:
    """module(*inputs). In training with ``recompute``, the backward pass computes the activations inside the module
    again, with the same dropout masks, instead of keeping them (Chen et al. 2016, arXiv:1604.06174)."""
    if recompute and module.training:
        return checkpoint(module, *inputs, use_reentrant=False)
    return module(*inputs)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, fused: bool) -> Tensor:
    """softmax(q k^T / sqrt(width)) v of (B, heads, N, width); ``mask`` is True where a key is there.

    ``fused`` kernels save memory and time; without, there are the second and forward derivatives that likelihood and
    guidance ask for, which fused kernels lack.
    """
    if fused:
        return F.scaled_dot_product_attention(q, k, v, mask)
    logits = q @ k.transpose(2, 3) * q.shape[3] ** -0.5
    return (logits if mask is None else logits.masked_fill(~mask, -math.inf)).softmax(dim=3) @ v
