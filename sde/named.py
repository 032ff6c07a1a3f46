"""Components by name: a key of a table, or the import path of one's own, as package.module:Class."""

import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_path(name: str) -> bool:
    """Whether a name is meant as an import path; no key of a table has a colon."""
    return ":" in name


def imported(key: str, path: str, fits: Callable[[Any], bool], needs: str) -> Any:
    """What an import path names, which runs the code of its module: only for paths that a user gave.

    Modules are looked for as Python does, and last in the working folder. Raises ValueError, which names the ``key``,
    for a path that is none, a module that is not found or fails, and for anything that does not fit; ``needs`` says
    what does.
    """
    given = f"{key} = {path!r}"
    if not PATH.fullmatch(path):
        raise ValueError(f"{given}: needs an import path as package.module:Class")
    module, _, name = path.partition(":")
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ValueError(f"{given}: {module} imports {error.name}, which is not installed") from None
        raise ValueError(
            f"{given}: there is no module {error.name} in {here} or on PYTHONPATH: work in the folder that holds it, "
            "or add that to PYTHONPATH"
        ) from None
    except (Exception, SystemExit) as error:
        raise ValueError(f"{given}: {module} could not be imported ({type(error).__name__}: {error})") from None
    place = getattr(found, "__file__", None) or module
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{given}: there is no {name} in {place}")
        found = getattr(found, part)
    if not fits(found):
        raise ValueError(f"{given}: {name} in {place} is not {needs}")
    return found


def component(table: Mapping[str, Any], key: str, name: str, fits: Callable[[Any], bool], needs: str) -> Any:
    """The component of a name in a table, or of an import path. Raises ValueError as ``imported``, and for a name that
    is neither."""
    if is_path(name):
        return imported(key, name, fits, needs)
    if name not in table:
        raise ValueError(f"{key} = {name!r}: needs one of {', '.join(table)}")
    return table[name]


def subclass_of(kind: type) -> Callable[[Any], bool]:
    """Whether something is a subclass of ``kind``."""
    return lambda found: isinstance(found, type) and issubclass(found, kind)


def construct(kind: Callable, key: str, name: str, options: dict, *arguments):
    """kind(*arguments, **options), or a ValueError that names the key and its name."""
    try:
        return kind(*arguments, **options)
    except (TypeError, RuntimeError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"{key} = {name!r} does not take these options ({error})") from None
