"""Files of tensors in the safetensors format, opened whatever their folders are called."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """``safetensors.safe_open``. Raises SafetensorError and OSError as that does."""
    if str(path).isprintable() or not Path("/dev/fd").is_dir():
        with safe_open(path, "pt") as file:
            yield file
        return
    # The library refuses names that are not UTF-8, and takes an open file by its number.
    with open(path, "rb") as held, safe_open(f"/dev/fd/{held.fileno()}", "pt") as file:
        yield file
