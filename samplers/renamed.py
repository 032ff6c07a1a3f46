"""Old names of arguments: classes that say the new one."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

T = TypeVar("T", bound=type)


def sentence(old: str, new: str) -> str:
    """What is said of an old name."""
    return f"{old} has a new name: take {new}"


def renamed_arguments(**names: str) -> Callable[[T], T]:
    """A decorator of classes whose arguments had the ``names`` before the equal sign: a TypeError says the new ones."""

    def decorate(kind: T) -> T:
        changed: Any = kind
        start = changed.__init__

        @wraps(start)
        def checked(self, *args: Any, **options: Any) -> None:
            for old in names.keys() & options.keys():
                raise TypeError(f"{kind.__name__}: {sentence(old, names[old])}")
            start(self, *args, **options)

        changed.__init__ = checked
        return kind

    return decorate
