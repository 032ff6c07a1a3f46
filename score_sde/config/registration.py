"""What a config file must not do: put a component into a table, where no later command would find it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Registered(Exception):
    """Names were put into tables, which are as they were again."""


@contextmanager
def nothing_registered(tables: Mapping[str, Mapping]) -> Iterator[None]:
    """Raise Registered where the context leaves one of these tables, by the key that names its components, with other
    components than before."""
    before = {key: dict(table) for key, table in tables.items()}
    yield
    changed = {
        key: [name for name in {**table, **before[key]} if table.get(name) is not before[key].get(name)]
        for key, table in tables.items()
    }
    for key, table in tables.items():
        if changed[key] and isinstance(table, dict):
            table.clear()
            table.update(before[key])
    found = [f"{key} = {names[0]!r}" for key, names in changed.items() if names]
    if found:
        raise Registered(
            f"registers {' and '.join(found)} for this command alone, and no other could read the run: networks, "
            "processes and data sets go by import path, as package.module:Class; others are lines in the project's "
            "own tables"
        )
