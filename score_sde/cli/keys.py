"""Config keys as text: their defaults, meanings and allowed values, for --help and for the reference page."""

import textwrap
from collections.abc import Collection
from dataclasses import dataclass

from score_sde.cli.meanings import ALLOWED, meaning
from score_sde.config.component import options_of
from score_sde.config.schema import DEFAULTS, NAMED

SECTIONS = (
    "data", "sde", "model", "model.network", "model.text", "training", "classifier", "classifier.network",
    "autoencoder", "autoencoder.network", "control", "distillation", "distillation.method", "sampler",
)  # fmt: skip


@dataclass(frozen=True)
class Key:
    """A key of a section: its ``path``, its default by component, "" where it is one for all, and its meaning."""

    path: str
    defaults: dict[str, object]
    meaning: str

    @property
    def allowed(self) -> list[str]:
        """The names that it may be set to; none where it is anything else. What empty is, its meaning says."""
        return [name for name in ALLOWED.get(self.path, ()) if name]

    @property
    def default(self) -> str:
        """The default, or those of the components that have the key."""
        if {*self.defaults} == {""}:
            return written(self.defaults[""])
        values = {written(value) for value in self.defaults.values()}
        names = [f"{name} {written(value)}" for name, value in self.defaults.items()]
        return f"{values.pop()} ({', '.join(self.defaults)})" if len(values) == 1 else ", ".join(names)


def written(value: object) -> str:
    """A value as it stands behind --config.key=."""
    return "''" if value == "" else str(value)


def keys(section: str) -> list[Key]:
    """The keys of a section of the config, those of all its components among them."""
    found: dict[str, dict[str, object]] = {}
    own = DEFAULTS
    for part in section.split("."):
        own = own[part]
    for key, value in own.items():
        if not isinstance(value, dict):
            found[key] = {"": value}
    for name, component in NAMED.get(section, {}).items():
        for key, value in options_of(component).items():
            found.setdefault(key, {})[name] = value
    return [Key(f"{section}.{key}", defaults, meaning(section, key)) for key, defaults in found.items()]


def lines(section: str, without: Collection[str] = ()) -> list[str]:
    """The keys of a section for --help, ``without`` some."""
    found = [f"config.{section}:"]
    for key in (key for key in keys(section) if key.path not in without):
        head = f"  --config.{key.path:<38} "
        choices = f": {', '.join(key.allowed)}" if key.allowed else ""
        text = f"{key.meaning}{choices} [default {key.default}]"
        found.append(textwrap.fill(text, 118, initial_indent=head, subsequent_indent=" " * len(head)))
    return found
