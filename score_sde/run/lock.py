"""One writer: a lock in a run folder, which a process that dies leaves behind harmlessly."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from sde.distributed.world import World
from sde.files import make_folder
from sde.locks import alive, lock


@contextmanager
def one_writer(path: Path, work: str, remedy: str, world: World | None = None, wait: bool = False) -> Iterator[None]:
    """Within, no other command that asks for the lock file ``path`` writes what it stands for; ``work`` says what this
    one does. The folder is made where there is none, and goes again where nothing was written.

    The lock is the operating system's: what a killed process leaves behind is a file that nobody holds. Of several
    processes the first one takes it for all. Raises ValueError, with a ``remedy``, where another command has it; with
    ``wait`` it says for whom it waits. On a file system without locks a living process of this machine is found by its
    number, and a line says that those of others are not.
    """
    world = world or World()
    held: list[IO[str]] = []
    made: list[Path] = []

    def take() -> None:
        made.extend(make_folder(path.parent))
        held.append(_taken(path, work, remedy, wait))

    try:
        world.broadcast_from_main(take)
        yield
    finally:
        for file in held:
            # While it is held: who opened it meanwhile finds it gone, and makes another.
            path.unlink(missing_ok=True)
            file.close()
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()


def _taken(path: Path, work: str, remedy: str, wait: bool) -> IO[str]:
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (held for longer than this function)
        try:
            locked = lock(file)
            if locked is not True:
                other = _record(file)
                if locked is False or _lives(other):
                    who = f"{path.parent} is being written by {_described(other)}"
                    if not wait:
                        raise ValueError(f"{who}: {remedy}")
                    print(f"{who}: waiting for it")
                    lock(file, wait=True)
                else:
                    print(f"{path.parent} is on a file system without locks: see that no other machine writes there")
            if _same(file, path):
                file.truncate(0)
                now = datetime.now().isoformat(" ", "seconds")
                record = {"process": os.getpid(), "host": socket.gethostname(), "work": work, "since": now}
                file.write(json.dumps(record) + "\n")
                file.flush()
                return file
        except BaseException:
            file.close()
            raise
        # It was another command's, which has ended and taken it away.
        file.close()


def _same(file: IO[str], path: Path) -> bool:
    """Whether an open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _record(file: IO[str]) -> dict:
    """What the holder of the lock wrote; nothing where it has not come to that yet."""
    file.seek(0)
    try:
        found = json.loads(file.read())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _lives(record: dict) -> bool:
    """Whether the holder is another living process of this machine."""
    process = record.get("process")
    if record.get("host") != socket.gethostname() or not isinstance(process, int):
        return False
    return process != os.getpid() and alive(process)


def _described(record: dict) -> str:
    if not record:
        return "another process"
    return (
        f"process {record.get('process')} on {record.get('host')} ({record.get('work')}, since {record.get('since')})"
    )
