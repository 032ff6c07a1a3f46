"""What the levels of an hourglass transformer are: depth, width, heads and attention of each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sde.networks.layers import check_choice, check_counts, per_level
from sde.networks.windows import Axis, neighborhood_axis, window_axis

ATTENTIONS = ("global", "neighborhood", "shifted_window", "none")


@dataclass(frozen=True)
class Level:
    """``depth`` layers of ``width`` features, feed-forward layers of ``hidden``, and an attention of ATTENTIONS in
    heads of ``head_width`` features to neighborhoods or windows of ``window`` tokens a side."""

    depth: int
    width: int
    hidden: int
    attention: str
    head_width: int
    window: int
    dropout: float

    @property
    def heads(self) -> int:
        """How many heads the attention has."""
        return self.width // self.head_width

    def axes(self, grid: Sequence[int], shifted: bool, device: torch.device) -> tuple[Axis, ...] | None:
        """What each token of a grid attends to, where that is not all of them. Windows that are ``shifted`` are moved
        by half their size."""
        if self.attention == "neighborhood":
            return tuple(neighborhood_axis(n, self.window, device) for n in grid)
        if self.attention == "shifted_window":
            shift = self.window // 2 if shifted else 0
            return tuple(window_axis(n, self.window, shift, device) for n in grid)
        return None


Surroundings = tuple[tuple[Axis, ...] | None, tuple[Axis, ...] | None]
"""What tokens attend to in layers of even and of odd number."""


def surroundings(level: Level, grid: Sequence[int], like: Tensor) -> Surroundings:
    """Of a level at a grid, once for all its layers."""
    even = level.axes(grid, False, like.device)
    return even, level.axes(grid, True, like.device) if level.attention == "shifted_window" else even


def levels_of(
    widths: Sequence[int],
    depths: Sequence[int],
    hidden_widths: Sequence[int],
    attentions: Sequence[str],
    head_widths: Sequence[int],
    windows: Sequence[int],
    dropout: float | Sequence[float],
) -> list[Level]:
    """The levels of these options, where one value stands for every level. Raises ValueError for other numbers of
    values than of levels, and for values that do not fit each other."""
    count = len(widths)
    check_counts(widths=widths, depths=depths, head_widths=head_widths, windows=windows)

    each = partial(per_level, widths=widths)
    attentions = each("attentions", attentions or ("neighborhood",) * (count - 1) + ("global",))
    hidden = each("hidden_widths", hidden_widths or [3 * width for width in widths])
    check_counts(hidden_widths=hidden)
    rows = zip(
        each("depths", depths),
        widths,
        hidden,
        attentions,
        each("head_widths", head_widths),
        each("windows", windows),
        each("dropout", dropout),
        strict=True,
    )
    levels = [Level(*row) for row in rows]
    for level in levels:
        check_choice("attentions", level.attention, ATTENTIONS)
        if level.attention != "none" and level.width % level.head_width:
            nearest = math.ceil(level.width / level.head_width) * level.head_width
            raise ValueError(
                f"width {level.width} in widths = {tuple(widths)} cannot be split into heads of head_widths = "
                f"{level.head_width}: needs a multiple, as {nearest}"
            )
        if level.attention == "neighborhood" and level.window % 2 == 0:
            raise ValueError(f"windows = {level.window}: a neighborhood has a middle, and needs an odd size, as 7")
    return levels
