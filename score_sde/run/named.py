"""Items of one's own with names: the rows of a file, or the files of a folder."""

from dataclasses import dataclass

import torch
from torch import Tensor

from score_sde.kinds import ARRAYS, KINDS, reader
from score_sde.kinds.base import Kind
from score_sde.run.inputs import read_like
from sde.data import Dataset, existing


@dataclass(frozen=True)
class Named:
    """Items ``x`` (n, *event) in data units, their ``names``, and where known their classes ``labels`` (n,) and of
    padded ones the ``sizes`` (n,)."""

    x: Tensor
    names: list[str]
    labels: Tensor | None
    sizes: Tensor | None


def read_every(path: str, data: Dataset, kind: Kind) -> Named:
    """All items of ``--input``: of a file with several the rows, named by their numbers from 0, or the files of a
    folder, each with one item or several, named by their paths in it, in the order of the paths. Raises ValueError as
    ``read_items``, and for a folder without such files."""
    flag, shape = "--input", data.event_shape
    file = existing(path, flag)
    if not file.is_dir():
        x, labels, sizes = read_like(flag, path, data, kind)
        return Named(x, [file.name] if reader(file, kind) else [str(i) for i in range(len(x))], labels, sizes)
    taken = (*ARRAYS, *(suffix for one in KINDS.values() for suffix in one.files))
    files = [one for one in sorted(file.rglob("*")) if one.is_file() and one.suffix.lower() in taken]
    if not files:
        raise ValueError(f"{flag}={path}: the folder holds no files of items ({', '.join(sorted({*taken}))})")
    parts, names, classes, lengths = [], [], [], []
    for one in files:
        x, labels, sizes = read_like(flag, str(one), data, kind)
        name = one.relative_to(file).as_posix()
        names += [name] if len(x) == 1 else [f"{name}:{i}" for i in range(len(x))]
        parts.append(x)
        classes.append(labels)
        # Items of which nothing is said are whole.
        lengths.append(torch.full((len(x),), max(shape[1:] or shape)) if sizes is None else sizes)
    known = [labels for labels in classes if labels is not None]
    longest = torch.cat(lengths)
    return Named(
        torch.cat(parts),
        names,
        torch.cat(known) if len(known) == len(classes) else None,
        longest if data.sizes is not None or (longest < max(shape[1:] or shape)).any() else None,
    )
