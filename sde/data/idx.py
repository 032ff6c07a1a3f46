"""IDX files, the format of MNIST."""

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

TYPES: dict[int, DTypeLike] = {
    0x08: np.uint8,
    0x09: np.int8,
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}


def read_idx(path: Path) -> np.ndarray:
    """An array from an IDX file, gzipped or not. Raises ValueError for a damaged file."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            content = file.read()
        kind, dims = content[2], content[3]
        shape = np.frombuffer(content, ">i4", dims, offset=4)
        return np.frombuffer(content, TYPES[kind], offset=4 + 4 * dims).reshape(shape)
    except (EOFError, OSError, zlib.error, IndexError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a readable IDX file ({error}): fetch it again") from None
