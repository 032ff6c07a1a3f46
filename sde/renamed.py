"""Old names: modules that moved when the folders came, each with a sentence that names the new place."""

import sys
from collections.abc import Mapping
from importlib.abc import MetaPathFinder

_PLACES = {
    "binding": "condition binding",
    "fit": "training fit",
    "gradients": "guidance",
    "guided": "guidance base",
    "limits": "guidance",
    "loss": "training loss",
    "measurement": "inverse measurement",
    "operators": "inverse operators",
    "options": "training options",
    "parallel": "distributed world",
    "posterior": "inverse posterior",
    "schedule": "process schedule",
    "snapshots": "checkpoint snapshots",
    "spec": "checkpoint spec",
    "transform": "data transform",
}
MOVED = {name: ".".join(["sde", *place.split()]) for name, place in _PLACES.items()}
"""Modules that were at the top of ``sde``, and where their names are now; written in parts, as nothing is imported."""


def missing(package: str, name: str, places: Mapping[str, str]) -> AttributeError:
    """What a package's ``__getattr__`` raises: with the new name, where it is an old one."""
    hint = f": it is {places[name]} now" if name in places else ""
    return AttributeError(f"module {package!r} has no attribute {name!r}{hint}")


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
