"""Facts: what a user says of foreign weights that their file does not, by the source's own names of its options."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

MISSING: Any = object()
"""What a file says of an option that it does not speak of."""


KINDS: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a list of numbers",
    list: "a list",
    dict: "a dict",
    type(None): "null",
}
"""The kinds of options, and how they are asked for."""

Kind = type | tuple[type, ...]
"""One of KINDS, or several that an option may be of."""


def kinds_by_name(names: Mapping[Kind, str]) -> dict[str, Kind]:
    """The kind of each option, of the ``names`` that are of a kind, with spaces between them."""
    return {name: kind for kind, text in names.items() for name in text.split()}


class Facts:
    """``given`` are options as the source itself calls them, flat or nested as its own config; ``options`` is each of
    its names with the meaning, and ``kinds`` what each may be. Raises ValueError for one that the source has not, and
    for what is not of its kind, whether it is of use or not."""

    def __init__(
        self, given: Mapping[str, Any] | None, options: Mapping[str, str], kinds: Mapping[str, Kind] | None = None
    ) -> None:
        if given is not None and not isinstance(given, Mapping):
            raise ValueError(f"facts = {given!r}: needs a dict of the source's options, as json.load reads one")
        self.options = options
        self._told: dict[str, list[Any]] = {}
        for name, value in _leaves(given or {}, options):
            self._told.setdefault(name, []).append(value)
        unknown = [name for name in self._told if name not in options]
        if unknown:
            near = difflib.get_close_matches(unknown[0], options, 1, 0.6)
            hint = f"did you mean {near[0]}?" if near else f"which has {', '.join(sorted(options))}"
            raise ValueError(f"facts: {unknown[0]!r} is no option of this source, {hint}")
        for name, values in self._told.items():
            for value in values:
                of_kind(name, value, (kinds or {}).get(name))

    def told(self, name: str, kind: type | None = None) -> Any:
        """What was told, or MISSING. Raises ValueError where a nested config tells it twice, and not the same, and for
        what is not of the ``kind``."""
        values = self._told.get(name, [MISSING])
        if not all(same(value, values[0]) for value in values):
            raise ValueError(f"facts: {name} is told as {values[0]!r} and as {values[1]!r}: tell it once")
        return values[0] if values[0] is MISSING else of_kind(name, values[0], kind)

    def settle(self, name: str, found: Any = MISSING, kind: type | None = None) -> Any:
        """The value of an option, which the file says, as ``found``, or the facts tell. Raises ValueError where they
        contradict, where neither does, and where it is not of the ``kind``, one of KINDS."""
        told = self.told(name)
        if told is MISSING and found is MISSING:
            raise ValueError(self.request(name))
        if told is not MISSING and found is not MISSING and not same(told, found):
            raise ValueError(f"facts: {name} = {told!r}, but the file has {found!r}")
        return of_kind(name, told if found is MISSING else found, kind)

    def missing(self, found: Mapping[str, Any]) -> list[str]:
        """The options that the file does not say, whose ``found`` value is MISSING, and that are not told either."""
        return [name for name, value in found.items() if value is MISSING and self.told(name) is MISSING]

    def require(self, found: Mapping[str, Any]) -> None:
        """Raise ValueError, for all options at once, where some are ``missing``."""
        if missing := self.missing(found):
            raise ValueError(self.request(*missing))

    def request(self, *names: str) -> str:
        """The sentence that asks for these options."""
        if len(names) == 1:
            return f"facts: {names[0]} is needed, {self.options[names[0]]}: the file does not say it"
        *first, last = (f"{name} ({self.options[name]})" for name in names)
        return f"facts: {', '.join(first)} and {last} are needed: the file does not say them"

    def get(self, name: str, default: Any) -> Any:
        """What was told, or the source's own ``default``, for an option whose default every file of it had. Raises
        ValueError for what is not of the default's kind."""
        told = self.told(name)
        return default if told is MISSING else of_kind(name, told, None if default is None else type(default))


def _leaves(values: Mapping[str, Any], options: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """The options in a config by their own names, whatever groups they stand in."""
    for name, value in values.items():
        if isinstance(value, Mapping) and name not in options:
            yield from _leaves(value, options)
        else:
            yield name, value


def of_kind(name: str, value: Any, kind: Kind | None) -> Any:
    """The value of an option as one of its kind, or of the first of several that it is of. Raises ValueError for one
    that is not, as a text in place of a truth value, or nothing in place of a number; of no kind all are."""
    if kind is None:
        return value
    kinds = kind if isinstance(kind, tuple) else (kind,)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = {
        bool: isinstance(value, bool),
        int: number and float(value).is_integer(),
        float: number and value == value,
        str: isinstance(value, str),
        tuple: isinstance(value, list | tuple) and all(isinstance(part, int | float) for part in value),
        list: isinstance(value, list | tuple),
        dict: isinstance(value, Mapping),
        type(None): value is None,
    }
    own = next((one for one in kinds if fits[one]), None)
    if own is None:
        raise ValueError(f"facts: {name} = {value!r}: needs {' or '.join(KINDS[one] for one in kinds)}")
    return None if value is None else own(value)


def same(a: Any, b: Any) -> bool:
    """Whether two values say the same: lists and tuples alike, and numbers of any type."""
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)
