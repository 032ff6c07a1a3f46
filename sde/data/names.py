"""Names of classes: their order, and the class that one stands for."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

CLASS_NAMES = "class_names"
"""The value of ``Dataset.about`` with the names of the classes, in the order of their numbers."""

DIGITS = re.compile(r"([0-9]+)")
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


def readable(name: str) -> str:
    """A name of a file as text: bytes that are no UTF-8, as from old disks, are read as Latin-1."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogateescape").decode("latin-1")
    return name


def composed(name: str) -> str:
    """The name as text, with its accents composed, NFC: some disks and archives hold them as letters of their own."""
    return unicodedata.normalize("NFC", readable(name))


def natural_order(name: str) -> tuple:
    """A key by which 2 comes before 10, alone and within a name, and letters of both cases together; names that are
    numbers as a whole come first, by their size."""
    if NUMBER.fullmatch(name):
        return (0, float(name), (), name)
    parts = DIGITS.split(composed(name).casefold())
    # Text and numbers alternate, so that only like is compared with like.
    return (1, 0.0, tuple(int(part) if i % 2 else part for i, part in enumerate(parts)), name)


def ordered(names: Iterable[str]) -> list[str]:
    """Each name once, in ``natural_order``."""
    return sorted(set(names), key=natural_order)


def class_title(number: int, names: Sequence[str] = ()) -> str:
    """What a class is called beside numbers and pictures: "class 3", with its name where it has one."""
    return f"class {number} ({names[number]})" if 0 <= number < len(names) else f"class {number}"


def class_of(name: str, names: Sequence[str], classes: int | None = None) -> int:
    """The number of the class that a text stands for: its name, or its number from 0. A name that is a number of
    another class stands for the class of that name. Of ``classes`` classes, by default those that have names. Raises
    ValueError for any other text."""
    count = classes or len(names)
    known = [composed(known) for known in names]
    wanted = composed(name.strip())
    if wanted in known:
        return known.index(wanted)
    folded = [known.casefold() for known in known]
    if folded.count(wanted.casefold()) == 1:
        return folded.index(wanted.casefold())
    if re.fullmatch(r"[0-9]+", wanted) and int(wanted) < count:
        return int(wanted)
    if re.fullmatch(r"[+-]?[0-9]+", wanted):
        raise ValueError(f"class {wanted} is out of range, allowed are 0 to {count - 1}")
    near = get_close_matches(wanted.casefold(), folded, 1)
    hint = f", did you mean {names[folded.index(near[0])]}?" if near else ""
    shown = f"one of {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}" if names else "class numbers"
    raise ValueError(f"{name!r} is no class: needs {shown}, or numbers from 0 to {count - 1}{hint}")
