"""Default names of the files that a mode writes, which tell what its command set."""

import hashlib
import re
from collections.abc import Collection
from pathlib import Path

from score_sde.run.folder import Run

LONGEST = 200
"""Bytes of a default file name; most file systems take 255, suffixes included."""
UNNAMED = ("out", "seed", "batch_size", "what")
"""Flags that change nothing in a file, or that its name tells without them."""


def settings_of(given: dict, overrides: list[str], defaults: dict) -> dict[str, str]:
    """What a command sets, as text: of the flags that were ``given`` those that are not at their ``defaults``, and its
    ``--config.key=value`` overrides, by the last part of the key."""
    texts = {name: written(value) for name, value in given.items() if name in defaults and name not in UNNAMED}
    found = {name: text for name, text in texts.items() if text not in ("", written(defaults[name]))}
    for argument in overrides:
        key, _, value = argument.lstrip("-").partition("=")
        found["sampler" if key == "config.sampler.name" else key.rpartition(".")[2]] = value
    return found


def written(value: object) -> str:
    """The value of a flag as it is written on the command line."""
    values = value if isinstance(value, tuple) else (value,)
    return ",".join(f"{one:.12g}" if isinstance(one, float) else str(one) for one in values)


def stem(run: Run, out: str | None, head: str, seed: int | None = None, told: Collection[str] = ()) -> Path:
    """``--out`` less its suffix; or, in the run's samples/, ``head``, the settings of the command less those that it
    has ``told``, and the seed, as in heun-25-labels=0,1-seed0. A name of more than LONGEST bytes ends in its digest."""
    if out:
        path = Path(out)
        return path.with_suffix("") if path.suffix in (".png", ".npz", ".json") else path
    parts = [f"{name}={_part(text)}" for name, text in run.settings.items() if name not in told]
    default = "-".join([head, *parts, *([] if seed is None else [f"seed{seed}"])])
    name = default.encode()
    if len(name) > LONGEST:
        default = f"{name[: LONGEST - 9].decode(errors='ignore')}-{_digest(default)}"
    return run.folder / "samples" / default


def _part(text: str) -> str:
    """A setting in a file's name: of a path its last part, and a digest, as files in two folders may have one name."""
    name = f"{Path(text).name}-{_digest(text)}" if "/" in text else text
    return re.sub(r"[^\w.,+=-]", "-", name)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
