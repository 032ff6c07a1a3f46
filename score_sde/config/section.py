"""Sections of a config: dataclasses whose keys are flat."""

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, ClassVar, get_type_hints

from score_sde.config.component import Component


class Section:
    """A section of the config. Its keys are flat: ``section.key`` is that of the dataclass in it that has it. Fields of
    its dataclasses that are ``without`` use in it are no keys, and have their defaults."""

    without: ClassVar[tuple[str, ...]] = ()

    def __getattr__(self, key: str) -> Any:
        if not key.startswith("_"):
            for part in vars(self).values():
                if is_dataclass(part) and any(key == f.name for f in fields(part)):
                    return getattr(part, key)
                if type(part) is dict and key in part:
                    return part[key]
        raise AttributeError(f"{type(self).__name__} has no key {key!r}")

    @classmethod
    def of(cls, values: Mapping[str, Any]):
        """The section of flat values, every one of its keys among them. Raises ValueError as its dataclasses do."""
        parts: dict[str, Any] = {}
        kinds = get_type_hints(cls)
        for name in (f.name for f in fields(cls)):  # type: ignore[arg-type]  # Each section is a dataclass.
            kind = kinds[name]
            if kind is Component:
                parts[name] = Component.of(values[name])
            elif isinstance(kind, type) and is_dataclass(kind):
                parts[name] = kind(**{f.name: values[f.name] for f in fields(kind) if f.name not in cls.without})
            elif name in values:
                parts[name] = values[name]
            else:
                parts[name] = {key: value for key, value in values.items() if key not in kinds}
        return cls(**parts)

    def to_dict(self) -> dict:
        """Plain values, flat, by key in order."""
        flat = {}
        for name, part in vars(self).items():
            if isinstance(part, Component):
                flat[name] = part.to_dict()
            elif is_dataclass(part) and not isinstance(part, type):
                flat |= {key: value for key, value in asdict(part).items() if key not in self.without}
            elif isinstance(part, dict):
                flat |= part
            else:
                flat[name] = part
        return dict(sorted(flat.items()))
