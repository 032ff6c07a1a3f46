"""Output files of a mode: their numbered default names, and what the command set, which goes into them."""

import re
from pathlib import Path

from score_sde.run.folder import Run

NUMBERED = re.compile(r"(\d{6,})-")
"""Beginning of the name of an output without ``--out``."""


def settings_of(given: dict, overrides: list[str], defaults: dict) -> dict[str, str]:
    """What a command sets, as text: of the flags that were ``given`` those that are not at their ``defaults``, but for
    ``--out``, and its ``--config.key=value`` overrides."""
    texts = {name: written(value) for name, value in given.items() if name in defaults and name != "out"}
    found = {name: text for name, text in texts.items() if text not in ("", written(defaults[name]))}
    for argument in overrides:
        key, _, value = argument.lstrip("-").partition("=")
        found["sampler" if key == "config.sampler.name" else key] = value
    return found


def written(value: object) -> str:
    """The value of a flag as it is written on the command line."""
    values = value if isinstance(value, tuple) else (value,)
    return ",".join(f"{one:.12g}" if isinstance(one, float) else str(one) for one in values)


def stem(run: Run, out: str | None, head: str, suffix: str = ".npz", folder: str = "samples") -> Path:
    """``--out`` less its suffix; or in a folder of the run the next free number and ``head``, as in 000012-heun-25.

    So that no other command takes the same name, its file with this ``suffix`` is made at once, empty: to be called
    where all that can be refused has been, and to be written over.
    """
    if out:
        path = Path(out)
        return path.with_suffix("") if path.suffix in (".png", ".npz", ".json") else path
    place = run.folder / folder
    place.mkdir(parents=True, exist_ok=True)
    taken = [int(match[1]) for path in place.iterdir() if (match := NUMBERED.match(path.name))]
    number = max(taken, default=0)
    while True:
        number += 1
        path = place / f"{number:06d}-{head}"
        try:
            Path(f"{path}{suffix}").touch(exist_ok=False)
        except FileExistsError:
            # Another command was faster.
            continue
        return path
