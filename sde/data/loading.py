"""Loading: a data set of a name as a run asks for it, of block means, with conditions, of a shape."""

import inspect
from collections.abc import Sequence
from dataclasses import replace

from sde.condition.tree import CONTROL
from sde.data.condition_noise import with_condition_noise
from sde.data.conditioning import conditioned, downsampled
from sde.data.controls import GIVEN, controlled
from sde.data.dataset import Dataset
from sde.data.sets import Split, source_of
from sde.data.transform import Transform


def load_dataset(
    dataset: str,
    *,
    event_shape: Sequence[int] = (),
    conditions: Sequence[str] = (),
    superres_factor: int = 2,
    condition_noise: Sequence[float] = (),
    downsample: int = 1,
    dequantized: bool = True,
    workers: int = 4,
    control: str = "",
    **options,
) -> Split:
    """The training and held-out part of the data set of a name (``source_of``), which takes the other ``options``.

    Of block means by ``downsample``; with the ``conditions``, of which superres has block means by ``superres_factor``;
    with noise on images or vectors among these, of levels between the two of ``condition_noise``; with the ``control``
    of this name (sde.data.controls), of which low_resolution has these block means, too. Without ``dequantized``
    quantized values are not spread over their cells by noise, and the least and the largest of them are -1 and 1 in
    model units. ``workers`` threads read. Raises ValueError for unknown names and conditions, and
    for items of another shape than ``event_shape``, where that is given.
    """
    source = source_of(dataset)
    if workers < 0:
        raise ValueError(f"workers = {workers}: needs zero, to read in the main thread, or more")
    takes = inspect.signature(source).parameters
    kinds = (*conditions, CONTROL) if control == GIVEN else tuple(conditions)
    shared = {"conditions": kinds, "workers": workers}
    parts = source(**options, **{name: value for name, value in shared.items() if name in takes})
    if downsample != 1:
        parts = downsampled(parts, downsample)
    if not dequantized:
        parts = _as_values(parts[0]), _as_values(parts[1])
    train, test = (conditioned(part, tuple(conditions), superres_factor) for part in parts)
    if len(condition_noise):
        train, test = with_condition_noise((train, test), condition_noise)
    train, test = (controlled(part, control, superres_factor) for part in (train, test))
    expected = tuple(event_shape)
    for key, part in (("root", train), ("test_root", test)):
        if expected and part.event_shape != expected:
            raise ValueError(
                f"items in `{key}` have shape {part.event_shape}, `event_shape` is {expected}: "
                f"{_remedy(part.event_shape, expected)}"
            )
    return train, test


def _as_values(part: Dataset) -> Dataset:
    """Quantized data without noise in their cells. Raises ValueError for continuous ones."""
    levels = part.transform.num_levels
    if not levels:
        raise ValueError("dequantized = False: the data are continuous, and have no levels; set it to True")
    return replace(part, transform=Transform.of_values(levels), dequantized=False)


def _remedy(found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    if found == (*expected[1:], expected[0]):
        return "if their last axis holds the channels, set channels=last"
    if (1, *found) == expected:
        return "if they have no axis of channels, set channels=none"
    if sorted(found) == sorted(expected):
        return "the axes are in another order; items are (channels, *space), images (channels, height, width)"
    return "correct it, or set it to () to take the data as they are"
