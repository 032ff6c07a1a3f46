"""Packages from wheels, for machines where nothing can be installed: ``make wheels`` downloads them where it can."""

import atexit
import importlib.util
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "wheels"
NEEDED = ("ml_collections", "torchsde", "trampoline")
"""What the project needs of them; the others are peers, whose columns are left out where they are not there."""


def packages(wheel: Path) -> set[str]:
    """The top-level packages and modules of a wheel, as they are imported."""
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    return {top.removesuffix(".py") for top in tops if not top.endswith((".dist-info", ".data"))}


def absent(names: set[str]) -> set[str]:
    """Those of the top-level packages that Python does not find."""
    return {name for name in names if importlib.util.find_spec(name) is None}


def provide(folder: Path = FOLDER) -> list[str]:
    """Put what wheels of a folder hold, and Python does not find, on its path: the names of these wheels. They are
    unpacked into a folder that is gone with the process, as some read files of theirs that a zip would hide.

    Raises ValueError for a wheel that is not pure Python, which is for one kind of machine, and where a package that
    the project needs is neither installed nor among them.
    """
    used = [wheel for wheel in sorted(folder.glob("*.whl")) if absent(packages(wheel))]
    if built := [wheel.name for wheel in used if not wheel.name.endswith("-none-any.whl")]:
        raise ValueError(f"{folder / built[0]}: needs a wheel of pure Python, whose name ends with -none-any.whl")
    if used:
        place = tempfile.mkdtemp(prefix="wheels-")
        atexit.register(shutil.rmtree, place, ignore_errors=True)
        for wheel in used:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(place)
        # Behind what is installed, which has the say over what it brings itself.
        sys.path.append(place)
        importlib.invalidate_caches()
    if missing := sorted(absent({*NEEDED})):
        raise ValueError(
            f"{', '.join(missing)}: neither installed nor among the wheels of {folder}; run `make wheels` where there "
            "is a network, and bring that folder along"
        )
    return [wheel.name.partition("-")[0] for wheel in used]
