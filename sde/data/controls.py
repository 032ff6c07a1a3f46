"""Controls: the images that are computed of items, or come with them, and by which a ControlNet is told of these."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from sde.condition.tree import CONTROL
from sde.data.block_means import BlockMeans
from sde.data.dataset import Dataset
from sde.data.edges import edges

Computed = Callable[[Tensor], Tensor]
"""Items (B, channels, *space) in data units -> controls (B, C, *control space)."""

GIVEN = "given"
"""The control that the data hold themselves, as the array "control" of an .npz."""


def silhouettes(x: Tensor) -> Tensor:
    """1 where the mean over the channels of items x (B, channels, *space) is above the middle between the item's least
    and largest, else 0; (B, 1, *space)."""
    gray = (x if x.is_floating_point() else x.float()).mean(1, keepdim=True)
    flat = gray.flatten(1)
    middle = (flat.amin(1) + flat.amax(1)) / 2
    return (gray > middle.view(-1, *[1] * (gray.ndim - 1))).to(gray.dtype)


CONTROLS: dict[str, Callable[[Any, int], Computed]] = {
    "edges": lambda items, factor: edges,
    "mask": lambda items, factor: silhouettes,
    "low_resolution": lambda items, factor: BlockMeans(items, factor, "superres_factor").of,
}
"""Controls that are computed of items, by name: functions of all items and a factor to one of some items."""

BINARY = ("edges", "mask")
"""Those that are 0 and 1."""


def controlled(part: Dataset, control: str, factor: int) -> Dataset:
    """The data with a control: a name in CONTROLS, or GIVEN, or nothing. Raises ValueError for others, for items
    without axes of space, and for a given one that is not there."""
    if not control:
        return part
    if control == GIVEN:
        if CONTROL not in part.conditions:
            raise ValueError(
                f"control = {control!r}: the data hold no control; store an array {CONTROL} (n, channels, *space) "
                f"beside x in an .npz, or take one of {', '.join(CONTROLS)}"
            )
        return part
    if control not in CONTROLS:
        raise ValueError(f"control = {control!r}: needs one of {', '.join((*CONTROLS, GIVEN))}, or nothing")
    if len(part.event_shape) < 2:
        raise ValueError(f"control = {control!r}: items of shape {part.event_shape} have no axes of space")
    computed = CONTROLS[control](part.items, factor)
    return replace(part, conditions={**part.conditions, CONTROL: computed})


def range_of(part: Dataset, control: str) -> tuple[float, float]:
    """The least and the largest value of the controls of data that have one: 0 and 1 of those in BINARY, the levels of
    quantized items in lower resolution, and else of as many items as the data measure. NaN is left out."""
    if control in BINARY:
        return 0.0, 1.0
    levels = part.transform.num_levels
    if control != GIVEN and levels:
        return 0.0, levels - 1.0
    low, high = float("inf"), -float("inf")
    for index in part.measured.split(256):
        _, cond = part.batch(index)
        values = (cond or {})[CONTROL]
        values = values[~values.isnan()]
        if values.numel():
            low, high = min(low, values.min().item()), max(high, values.max().item())
    if not low < high:
        raise ValueError(f"control = {control!r}: its values are all equal, and say nothing")
    return low, high
