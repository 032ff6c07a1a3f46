"""The hint encoder: a control image at the resolution, and with the channels, at which a network takes it in."""

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sde.networks.embedding import repeat_to
from sde.networks.layers import CONVOLUTIONS, check_counts, pad, zero_init


def ratio_of(size: int, wanted: int) -> int:
    """By how much a control of ``size`` entries along an axis is halved, thirded, ... to the ``wanted`` ones: its last
    block may be filled up with zeros. Below 1, as -2, by how much each entry is repeated. Raises ValueError where
    neither fits."""
    ratio = math.ceil(size / wanted)
    if size < wanted and wanted % size == 0:
        return -(wanted // size)
    if size < wanted or math.ceil(size / ratio) != wanted:
        raise ValueError(
            f"a control of {size} entries along an axis does not fit the {wanted} of the network: needs a multiple or "
            "a divisor"
        )
    return ratio


def factors_of(number: int) -> list[int]:
    """The prime factors of a number, the smallest first; none of 1."""
    for factor in range(2, number + 1):
        if number % factor == 0:
            return [factor, *factors_of(number // factor)]
    return []


class HintEncoder(nn.Module):
    """A control (B, C, *space) -> a hint (B, *hint_shape), zero at first (Zhang et al. 2023, section 3.3, E(.)).

    A convolution to the first of ``channels`` and a second one; then, for each prime factor p of the ratio of the
    resolutions, one of stride p and width 2 p - 1; each with SiLU behind it, to the next of ``channels`` and the last
    of them further on; at the end a convolution that starts at zero. The ratio may be another one along each axis. A
    control that is coarser than the hint has its entries repeated. Raises ValueError for a control with other axes of
    space, or of a size that neither divides nor is divided.
    """

    def __init__(
        self, control_shape: Sequence[int], hint_shape: Sequence[int], channels: Sequence[int] = (16, 32)
    ) -> None:
        super().__init__()
        check_counts(hint_channels=channels)
        space, wanted = tuple(control_shape[1:]), tuple(hint_shape[1:])
        if len(space) != len(wanted) or not space:
            raise ValueError(
                f"a control of shape {tuple(control_shape)} has {len(space)} axes of space, the items {len(wanted)}: "
                "needs as many"
            )
        ratios = [ratio_of(*sizes) for sizes in zip(space, wanted, strict=True)]
        self.shape = tuple(control_shape)
        self.repeats, self.ratios = [max(1, -ratio) for ratio in ratios], [max(1, ratio) for ratio in ratios]
        conv: Any = CONVOLUTIONS[len(space)]
        strides = [*zip_longest(*map(factors_of, self.ratios), fillvalue=1)]
        widths = [channels[min(number, len(channels) - 1)] for number in range(len(strides) + 1)]
        self.layers = nn.ModuleList([conv(control_shape[0], widths[0], 3, padding=1)])
        self.layers.append(conv(widths[0], widths[0], 3, padding=1))
        for before, after, stride in zip(widths, widths[1:], strides, strict=False):
            wide = [2 * step - 1 if step > 1 else 3 for step in stride]
            self.layers.append(conv(before, after, wide, stride=stride, padding=[width // 2 for width in wide]))
        self.head = zero_init(conv(widths[-1], hint_shape[0], 3, padding=1))

    def forward(self, control: Tensor) -> Tensor:
        repeated = [size * repeat for size, repeat in zip(control.shape[2:], self.repeats, strict=True)]
        h = pad(repeat_to(control, repeated), self.ratios)
        for layer in self.layers:
            h = F.silu(layer(h))
        return self.head(h)
