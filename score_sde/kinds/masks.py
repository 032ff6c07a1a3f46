"""Masks by word: which entries of an item are observed."""

from collections.abc import Callable

import torch
from torch import Tensor

MaskOf = Callable[[tuple[int, ...], str, int], Tensor]
"""(space, value, seed) -> booleans (*space), True where an entry is observed."""


def half(axis: int, second: bool) -> MaskOf:
    """The first or the second half along an axis, counted from the last."""

    def observed(space: tuple[int, ...], value: str, seed: int) -> Tensor:
        if len(space) < -axis:
            raise ValueError(
                f"the items have the axes {space}, and no rows: needs left, right, box, random:SHARE or a file"
            )
        index = torch.arange(space[axis]).view(-1, *[1] * (-1 - axis))
        return ((2 * index >= space[axis]) == second).expand(space)

    return observed


def all_but_the_center(space: tuple[int, ...], value: str, seed: int) -> Tensor:
    """False in the middle half of every axis."""
    inside = torch.ones(space, dtype=torch.bool)
    for axis, size in enumerate(space):
        index = torch.arange(size).view(-1, *[1] * (len(space) - 1 - axis))
        inside &= (index >= size // 4) & (index < size - size // 4)
    return ~inside


def random_share(space: tuple[int, ...], value: str, seed: int) -> Tensor:
    """A share of the entries, which the seed chooses."""
    try:
        observed = float(value)
    except ValueError:
        observed = -1
    if not 0 < observed < 1:
        raise ValueError("needs random:SHARE, the share that is observed, above 0 and below 1, as in random:0.5")
    mask = torch.zeros(space, dtype=torch.bool).flatten()
    order = torch.randperm(len(mask), generator=torch.Generator().manual_seed(seed))
    mask[order[: max(1, round(observed * len(mask)))]] = True
    return mask.view(space)


MASKS: dict[str, MaskOf] = {
    "upper": half(-2, False),
    "lower": half(-2, True),
    "left": half(-1, False),
    "right": half(-1, True),
    "box": all_but_the_center,
    "random:": random_share,
}
"""Masks by word, for any kind of data; a word that ends in a colon has a value behind it."""
