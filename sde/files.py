"""Files that are written whole or not at all."""

import json
import math
import os
import shutil
from pathlib import Path

WRITTEN = (".safetensors", ".json", ".jsonl", ".png", ".html")
"""Suffixes of the files at the top of a run folder."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a crash at any moment leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: dict) -> None:
    """Write a value as JSON, as by ``write_whole``. Infinity stays what it is, as configs have it: results that others
    read are made ``finite`` first."""
    write_whole(path, (json.dumps(value, indent=2) + "\n").encode())


def finite(value):
    """A value as JSON has it: None for numbers within it that are not finite, lists for tuples."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def remove_partial(folder: Path) -> None:
    """Remove what ``write_whole`` or ``write_shards`` left in a run folder where a process was killed within."""
    folders = (folder / inner for inner in ("", "checkpoints", "ema", "classifier_ema"))
    for path in (found for inner in folders for found in inner.glob(".*.*")):
        written, _, process = path.name[1:].rpartition(".")
        if process.isdigit() and (path.parent != folder or Path(written).suffix in WRITTEN):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file, or a folder with what is in it."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
