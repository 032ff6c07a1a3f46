"""Files that are written whole or not at all."""

import hashlib
import json
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sde.locks import alive, lock

WRITTEN = (".safetensors", ".json", ".jsonl", ".png", ".html")
"""Suffixes of the files at the top of a run folder."""


TEMPORARY = re.compile(r"\.(?P<written>.+)\.(?P<process>\d+)(-[0-9a-f]{8})?")
"""Names of files while they are written: the name to come, and the process that writes."""

ABANDONED_AFTER = 3600.0
"""Seconds without a change after which a temporary file counts as abandoned where nothing else tells."""


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which gets its name at the end of the context: a crash at any moment leaves the old one or the
    new one. Its mode is as the umask says, and it is locked while it is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            lock(file)
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a crash at any moment leaves the old one or the new one."""
    with whole(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, as by ``write_whole``. A name that is not UTF-8 has its bytes escaped in it."""
    write_whole(path, text.encode("utf-8", "backslashreplace"))


def file_digest(path: Path) -> str:
    """sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """The value in a JSON file, which an editor may have saved with a byte order mark. Raises ValueError for a file
    that is none."""
    content = path.read_bytes()
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("it is no text in UTF-8: save it as that") from None
    except RecursionError:
        raise ValueError("its lists and objects are too deep in one another") from None


def expanded(path: str) -> str:
    """A path whose ~ and $VARIABLES are written out, which shells do not do behind an equals sign or in quotes. One
    that exists as it is stays. Raises ValueError for a variable that is not set."""
    if os.path.lexists(path):
        return path
    found = os.path.expanduser(os.path.expandvars(path))
    missing = re.search(r"\$(\w+|\{\w+\})", found)
    if missing:
        raise ValueError(f"{path}: the variable {missing[1].strip('{}')} is not set")
    return found


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


def make_folder(folder: Path) -> list[Path]:
    """Make a folder, and those that it lies in where there are none: the ones that were made, the outermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()][::-1]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def remove_partial(folder: Path) -> None:
    """Remove what ``whole`` or ``write_shards`` left in a run folder where a process was killed within. What another
    process is writing stays."""
    folders = (folder / inner for inner in ("", "checkpoints", "ema", "classifier_ema", "autoencoder_ema"))
    for path in (found for inner in folders for found in inner.glob(".*.*")):
        name = TEMPORARY.fullmatch(path.name)
        ours = name and (path.parent != folder or Path(name["written"]).suffix in WRITTEN)
        if name and ours and _abandoned(path, int(name["process"])):
            remove(path)


def _abandoned(path: Path, process: int) -> bool:
    """Whether nobody writes a temporary file any more."""
    # The folder of a sharded state has 0 in the place of a process: who continues the run is the only one to write it.
    if process and process != os.getpid() and alive(process):
        return False
    if path.is_dir():
        return True
    try:
        with open(path, "r+b") as file:
            taken = lock(file)
        # Without locks, the process may be one of another machine.
        unchanged = time.time() - path.stat().st_mtime
    except OSError:
        return False
    return bool(taken) if taken is not None else unchanged > ABANDONED_AFTER


def remove(path: Path) -> None:
    """Remove a file, or a folder with what is in it."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
