"""Locks of the operating system on open files: they end with the process that holds them, however it ends."""

import os
from types import ModuleType
from typing import IO

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:
    # Windows has none of this kind.
    fcntl = None


def lock(file: IO, wait: bool = False) -> bool | None:
    """Take the lock of a file that is open for writing, until it is closed: True, or False where it was opened and
    locked elsewhere, in this process too. None where the file system has no locks. With ``wait`` it is never False."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def alive(process: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
