"""Volumes (channels, depth, height, width)."""

from torch import Tensor

from score_sde.kinds.base import About, Event, Kind
from score_sde.kinds.image import colors, in_a_row, pixels
from score_sde.kinds.tasks import TASKS


class Volume(Kind):
    """Seen by the middle slice."""

    name = "volume"
    layout = "sheet"
    tasks = TASKS

    def fits(self, shape: Event) -> bool:
        return len(shape) == 4

    def shown(self, x: Tensor, lead: int = 1) -> Tensor | None:
        return colors(x.select(lead + 1, x.shape[lead + 1] // 2), lead) if x.ndim - lead == 4 else None

    def element(self, item: Tensor, levels: int | None, about: About) -> str:
        return pixels(self, item, levels) or super().element(item, levels, about)

    def examples(self, shape: Event) -> int:
        return in_a_row(shape)
