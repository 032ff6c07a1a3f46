"""Kinds of data: what a person sees of an item. Only these know that (1, 28, 28) is an image."""

from pathlib import Path

from score_sde.kinds.base import Kind
from score_sde.kinds.image import Image
from score_sde.kinds.point import Point
from score_sde.kinds.signal import Signal
from score_sde.kinds.volume import Volume
from sde.files import expanded

KINDS: dict[str, Kind] = {
    "image": Image(),
    "volume": Volume(),
    "signal": Signal(),
    "point": Point(),
    "array": Kind(),
}
"""By the name in ``config.data.kind``. What fits no other kind is an array."""

ARRAYS = (".npy", ".npz", ".csv", ".tsv")
"""Suffixes of the files that hold arrays, which any kind may come in."""


def kind_of(shape: tuple[int, ...], source: str = "") -> Kind:
    """The kind of data for which nobody names one: that whose files the ``source`` is one of, or a folder of, or the
    first that items of a shape fit."""
    path = Path(expanded(source))
    if source and path.is_dir():
        path = next((file for file in path.rglob("*.*") if file.is_file()), path)
    suffix = path.suffix.lower()
    reading = (kind for kind in KINDS.values() if suffix in kind.files)
    fitting = (kind for name, kind in KINDS.items() if name != "array" and kind.fits(shape))
    return next(reading, None) or next(fitting, KINDS["array"])


def named_beside(kind: Kind, shape: tuple[int, ...]) -> str:
    """What digests of data of a shape say of their kind: its name, and nothing where the shape alone tells it."""
    return "" if kind is kind_of(shape) else kind.name


def reader(file: Path, own: Kind) -> Kind | None:
    """The kind that reads a file of one item: a run's ``own``, or that whose files it is one of; None for arrays."""
    suffix = file.suffix.lower()
    if suffix in own.files:
        return own
    return None if suffix in ARRAYS else next((kind for kind in KINDS.values() if suffix in kind.files), None)
