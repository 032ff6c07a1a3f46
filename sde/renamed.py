"""Old names: modules that moved when the folders came, each with a sentence that names the new place."""

import sys
from collections.abc import Mapping
from importlib.abc import MetaPathFinder

_PLACES = {
    "binding": "condition binding",
    "fit": "training",
    "gradients": "guidance",
    "guided": "guidance base",
    "limits": "guidance",
    "loss": "training",
    "measurement": "inverse measurement",
    "operators": "inverse",
    "options": "training",
    "parallel": "distributed world",
    "posterior": "inverse",
    "schedule": "process schedule",
    "snapshots": "checkpoint snapshots",
    "spec": "checkpoint spec",
    "transform": "data transform",
}
MOVED = {name: ".".join(["sde", *place.split()]) for name, place in _PLACES.items()}
"""Modules that were at the top of ``sde``, and where their names are now; written in parts, as nothing is imported."""


def missing(package: str, name: str, places: Mapping[str, str]) -> AttributeError:
    """What a package's ``__getattr__`` raises: with the new place, where it is a module that moved."""
    hint = f": it is {places[name]} now" if name in places else ""
    return AttributeError(f"module {package!r} has no attribute {name!r}{hint}")


def sentence(old: str, new: str) -> str:
    """What is said of an old name."""
    return f"{old} has a new name: take {new}"


def gone(package: str, name: str, names: Mapping[str, str]) -> ImportError | AttributeError:
    """The same for a class with a new name: an ImportError, since ``from package import name`` hides the sentence of an
    AttributeError."""
    if name in names:
        return ImportError(sentence(f"{package}.{name}", f"{package}.{names[name]}"))
    return missing(package, name, {})


class Renamed(MetaPathFinder):
    """Asked last, for modules that nothing else finds: raises ImportError with the new place of an old one."""

    def find_spec(self, name: str, path=None, target=None) -> None:
        """None for all other modules."""
        package, _, module = name.rpartition(".")
        if package == "sde" and module in MOVED:
            # Without its name: ``from sde import posterior`` would pass over the sentence.
            raise ModuleNotFoundError(f"No module named {name!r}: it is {MOVED[module]} now")
        if name == "metrics":
            place = ".".join(["score_sde", name])
            raise ModuleNotFoundError(f"No module named {name!r}: if that of score-sde is meant, it is {place} now",
                                      name=name)  # fmt: skip


def watch() -> None:
    """Put one ``Renamed`` behind all finders of modules."""
    if not any(isinstance(finder, Renamed) for finder in sys.meta_path):
        sys.meta_path.append(Renamed())
