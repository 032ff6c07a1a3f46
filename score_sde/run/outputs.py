"""Output files of a mode: their numbered default names, and what the command set, which goes into them."""

import math
import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from score_sde.run.folder import Run
from sde.files import make_folder

NUMBERED = re.compile(r"(\d{6,})-")
"""Beginning of the name of an output without ``--out``."""


def settings_of(given: dict, overrides: list[str], defaults: dict) -> dict[str, str]:
    """What a command sets, as text: of the flags that were ``given`` those that are not at their ``defaults``, but for
    ``--out``, and its ``--config.key=value`` overrides."""
    texts = {name: written(value) for name, value in given.items() if name in defaults and name != "out"}
    found = {name: text for name, text in texts.items() if text not in ("", written(defaults[name]))}
    for argument in overrides:
        key, _, value = argument.lstrip("-").partition("=")
        found["sampler" if key == "config.sampler.name" else key] = value
    return found


def written(value: object) -> str:
    """The value of a flag as it is written on the command line."""
    values = value if isinstance(value, tuple) else (value,)
    return ",".join(f"{one:.12g}" if isinstance(one, float) else str(one) for one in values)


def calls(number: float) -> str:
    """As in 1 network call, 2.5 network calls."""
    return f"{number:.4g} network call{'s' * (number != 1)}"


SUFFIX = re.compile(r"\.[a-z][a-z0-9]{0,11}", re.IGNORECASE)
"""What counts as a suffix: rows.csv has one, v1.5 has none."""
WRITTEN = (".png", ".gif", ".npz", ".json", ".html", ".csv")
"""Suffixes of the files that modes write."""
RESERVE = 2**26
"""Bytes that are left free on a disk, for what is written beside the numbers."""


def without_suffix(out: str) -> Path:
    """``--out`` less its suffix."""
    path = Path(out)
    return path.with_suffix("") if path.suffix in WRITTEN else path


def check_out(out: str, suffixes: tuple[str, ...], mode: str) -> None:
    """Refuse, before any work, an ``--out`` that the mode, which writes files with these suffixes, could not write."""
    path, given = Path(out), f"--out={out}"
    if not out or out.endswith(("/", os.sep)) or path.is_dir():
        raise ValueError(f"{given} is a folder, or nothing: name a file, as in {Path(out or '.') / mode}")
    if SUFFIX.fullmatch(path.suffix) and path.suffix not in suffixes:
        *others, last = suffixes
        written_ones = f"{', '.join(others)} and {last}" if others else last
        raise ValueError(
            f"{given}: --mode {mode} writes {written_ones}; name it "
            f"{path.with_suffix(suffixes[0])}, or without a suffix"
        )
    base = without_suffix(out)
    for suffix in suffixes:
        if Path(f"{base}{suffix}").is_dir():
            raise ValueError(f"{given}: {base}{suffix} is a folder, and a file of this name would be written")
    check_folder(base.parent, given)


def check_folder(folder: Path, given: str) -> None:
    """Refuse a folder in which no file can be made, or that cannot itself be made; nothing is left of the trial."""
    made: list[Path] = []
    try:
        made = make_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        file = next((path for path in (folder, *folder.parents) if path.is_file()), None)
        reason = error.strerror or error if file is None else f"{file} is a file, not a folder"
        raise ValueError(f"{given}: no file can be written in {folder} ({reason}); name another place") from None
    finally:
        for path in reversed(made):
            with suppress(OSError):
                path.rmdir()


def check_room(folder: Path, size: float, what: str) -> None:
    """Refuse what would need more bytes than the disk of a folder has left. Nothing is refused where a file system
    does not tell."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        total, _, free = shutil.disk_usage(place)
    except OSError:
        return
    if total and size + RESERVE > free:
        raise ValueError(
            f"{what} would take about {amount(size)} in {folder}, whose disk has {amount(free)} left: make room, ask "
            "for less, or name another place"
        )


def check_room_of(run: Run, out: str | None, count: int, event_shape: tuple[int, ...], folder: str = "samples") -> None:
    """Refuse so many items (*event_shape) as float32 where the disk of ``--out``, or of the run, has no room."""
    place = without_suffix(out).parent if out else run.folder / folder
    size = 4.0 * count * math.prod(event_shape)
    run.world.broadcast_from_main(lambda: check_room(place, size, f"{count:,} items of shape {event_shape}"))


def amount(size: float) -> str:
    """Bytes in words."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def stem(run: Run, out: str | None, head: str, suffix: str = ".npz", folder: str = "samples") -> Path:
    """``--out`` less its suffix; or in a folder of the run the next free number and ``head``, as in 000012-heun-25.

    So that no other command takes the same name, its file with this ``suffix`` is made at once, empty: to be called
    where all that can be refused has been, and to be written over.
    """
    if out:
        return without_suffix(out)
    place = run.folder / folder
    place.mkdir(parents=True, exist_ok=True)
    taken = [int(match[1]) for path in place.iterdir() if (match := NUMBERED.match(path.name))]
    number = max(taken, default=0)
    while True:
        number += 1
        path = place / f"{number:06d}-{head}"
        try:
            Path(f"{path}{suffix}").touch(exist_ok=False)
        except FileExistsError:
            # Another command was faster.
            continue
        return path
