"""Pictures of samples beside what they are conditioned on."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from score_sde.kinds.base import Kind
from score_sde.plots.pictures import comparison, picture
from sde.condition.tree import CONTROL, Condition, labels_of
from sde.networks.embedding import repeat_to


def _as_image(control: Tensor | None, x: Tensor, kind: Kind, levels: int | None) -> Tensor | None:
    """A control of one channel, or of as many as the samples x have, between black and white of these."""
    if control is None or control.shape[1] not in (1, x.shape[1]) or kind.shown(x) is None:
        return None
    if any(size % small for size, small in zip(x.shape[2:], control.shape[2:], strict=True)):
        # Finer than the samples are.
        return None
    low, high = kind.scale(x.double(), levels)
    control = control.nan_to_num()
    least, most = control.min(), control.max()
    unit = (control - least) / (most - least).clamp(min=1e-12)
    return (low + unit * (high - low)).expand(-1, x.shape[1], *control.shape[2:])


def show(
    x: Tensor,
    cond: Condition | None,
    path: Path,
    *,
    kind: Kind,
    levels: int | None,
    sizes: Tensor | None = None,
    words: Sequence[str] | None = None,
) -> bool:
    """Samples as by ``picture``, with the ``words`` that they were drawn for; beside each the image that it is
    conditioned on, where that has its channels, or its first control."""
    told = cond or {}
    image = told["image"] if "image" in told else _as_image(told.get(CONTROL), x, kind, levels)
    if image is None or image.shape[1] != x.shape[1]:
        return picture(x, path, kind=kind, levels=levels, labels=labels_of(cond), sizes=sizes, words=words)
    small = repeat_to(image.nan_to_num(), x.shape[2:]).to(x)
    return comparison(small, x, path, kind=kind, levels=levels, sizes=sizes, words=words)
