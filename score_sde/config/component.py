"""A component of a run by name: what a section of the config with a ``name`` stands for."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any


def options_of(component: Callable) -> dict:
    """The keyword arguments of a component that a config can set, with their defaults."""
    return dict(_options_of(component))


@cache
def _options_of(component: Callable) -> tuple[tuple[str, Any], ...]:
    parameters = inspect.signature(component).parameters.values()
    return tuple(
        (p.name, p.default)
        for p in parameters
        if p.default is not p.empty and isinstance(p.default, bool | int | float | str | tuple)
    )


@dataclass(frozen=True)
class Component(Mapping):
    """A name in a table of components and the keyword arguments; as a mapping, both of them flat."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        return self.name if key == "name" else self.options[key]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(("name", *self.options)))

    def __len__(self) -> int:
        return 1 + len(self.options)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Component":
        """The inverse of ``dict(component)``."""
        return cls(values["name"], {key: value for key, value in values.items() if key != "name"})

    def to_dict(self) -> dict:
        """Plain values, by key in order."""
        return dict(self)
