"""Layers and helpers that networks of several kinds are built of."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sde.device import differentiating_forward


def groups_of(channels: int) -> int:
    """Groups to normalize channels in: a power of two up to 32, of at least four channels each where their number is a
    multiple of four; where this gives one, the largest divisor up to 32 that leaves a group two channels or more."""
    groups = math.gcd(32, channels // 4 if channels % 4 == 0 else channels)
    return groups if groups > 1 else largest_divisor(channels, min(32, channels // 2))


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of a number that is at most ``limit``, and 1 where there is none."""
    return next((divisor for divisor in range(limit, 1, -1) if number % divisor == 0), 1)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm with ``groups_of`` the channels."""
    return nn.GroupNorm(groups_of(channels), channels)


def capped_group_norm(channels: int, group_channels: int = 4, eps: float = 1e-6) -> nn.GroupNorm:
    """Group norm with 32 groups, or as many as leave each ``group_channels`` channels; ``eps`` is that of Song et al.
    2021.

    Where these do not divide the channels, the next smaller number of groups that does.
    """
    return nn.GroupNorm(largest_divisor(channels, min(32, channels // group_channels)), channels, eps=eps)


def residual_sum(x: Tensor, branch: Tensor, rescale: bool) -> Tensor:
    """x + branch; with ``rescale`` over sqrt 2, which keeps unit variance (Karras et al. 2018; Song et al. 2021, H)."""
    total = x + branch
    return total * math.sqrt(0.5) if rescale else total


@dataclass(frozen=True)
class BlockOptions:
    """What the blocks of a U-Net share: axes of space, width of the embedding, dropout, rescaled residual sums.

    ``norm`` makes the group norm of a number of channels. ``adaptive`` embeddings scale and shift, others shift alone,
    before the norm. Attention has ``num_heads``, or where that is None as many as have ``head_channels``, or one where
    that is None, too. ``projected`` blocks have a convolution on their skip wherever they resample.
    """

    dims: int
    width: int
    dropout: float
    rescale: bool = False
    norm: Callable[[int], nn.Module] = group_norm
    adaptive: bool = True
    head_channels: int | None = 64
    num_heads: int | None = None
    projected: bool = False


CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


TRANSPOSED_CONVOLUTIONS = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
"""Transposed convolutions by the number of axes of space."""


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


def pad(x: Tensor, factor: int | Sequence[int]) -> Tensor:
    """x with each axis of space zero-padded at its end to a multiple of ``factor``, which may be one for each axis."""
    factors = [factor] * (x.ndim - 2) if isinstance(factor, int) else factor
    missing = [-size % f for size, f in zip(x.shape[2:], factors, strict=True)]
    return F.pad(x, [amount for m in reversed(missing) for amount in (0, m)]) if any(missing) else x


def crop(x: Tensor, space: Sequence[int]) -> Tensor:
    """x (B, channels, *larger) without what ``pad`` added to ``space``."""
    region: tuple[Any, ...] = (..., *(slice(size) for size in space))
    return x[region]


def run(module: nn.Module, *inputs: Tensor | tuple[Any, ...] | bool | None, recompute: bool) -> Tensor:
    """module(*inputs). In training with ``recompute``, the backward pass computes the activations inside the module
    again, with the same dropout masks, instead of keeping them (Chen et al. 2016, arXiv:1604.06174); but not under
    forward-mode differentiation, whose tangents are gone by then."""
    if recompute and module.training and not differentiating_forward():
        return checkpoint(module, *inputs, use_reentrant=False)
    return module(*inputs)
