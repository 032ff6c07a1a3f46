"""The cache: items kept on disk as they were decoded once."""

import hashlib
import math
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from torch import Tensor

from sde.files import whole


def cached(parts: Iterable[Tensor], shape: tuple[int, ...], stamp: object, folder: Path) -> np.ndarray:
    """uint8 items of ``shape``, given in parts, as an array in a file in ``folder``, which is mapped, not loaded.

    The parts are asked for only where no file is named by ``stamp``, whose repr must change when the items do. A file
    gets its name when it is whole. Raises ValueError where it cannot be written.
    """
    path = folder / f"{hashlib.sha256(repr((shape, stamp)).encode()).hexdigest()[:32]}.npy"
    array = _mapped(path)
    if array is not None:
        return array
    needed = math.prod(shape)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        total, _, free = shutil.disk_usage(path.parent)
        if total and needed > free:
            raise OSError(f"it takes {needed / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free")
        with whole(path) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for part in parts:
                file.write(part.numpy().data)
    except OSError as error:
        raise ValueError(f"cache = {folder} cannot hold the decoded set ({error}): name another") from None
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _mapped(path: Path) -> np.ndarray | None:
    """The array of a file, where it is there and whole."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
