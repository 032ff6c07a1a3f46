"""Whether the built distributions hold what they must: ``make dist``."""

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
APART = (".ci/", ".gitignore")
"""What serves the repository alone."""
PACKAGES = {"sde", "samplers", "score_sde"}
"""What a wheel installs."""


def files_of_sdist(path: Path) -> set[str]:
    """The files in a source distribution, relative to its root."""
    with tarfile.open(path) as archive:
        return {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}


def check_sdist(path: Path) -> None:
    """Raise ValueError unless it holds every file of the repository."""
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    missing = {name for name in tracked if not name.startswith(APART)} - files_of_sdist(path)
    if missing:
        raise ValueError(f"{path.name} has no {', '.join(sorted(missing))}: see MANIFEST.in")


def check_top_level(path: Path) -> None:
    """Raise ValueError unless a wheel puts exactly our three packages, each typed, beside those of others."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    if tops != PACKAGES:
        raise ValueError(f"{path.name} installs {', '.join(sorted(tops))}: needs exactly {', '.join(sorted(PACKAGES))}")
    untyped = {name for name in PACKAGES if f"{name}/py.typed" not in names}
    if untyped:
        raise ValueError(f"{path.name} has no py.typed in {', '.join(sorted(untyped))}")


def check_wheel(path: Path, folder: Path) -> None:
    """Raise ValueError unless its command trains and samples, from a folder that has nothing to do with it."""
    target, elsewhere = folder / "installed", folder / "elsewhere"
    elsewhere.mkdir()
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--target"]
    subprocess.run([sys.executable, *install, str(target), str(path)], check=True)
    small = ["--config.training.steps=3", "--config.training.batch_size=8", "--config.training.sample_every=3"]
    for arguments in (["train", "--config", "points", *small], ["sample", "--workdir", "runs/points", "--steps", "3"]):
        # The script is started by its interpreter, which has the packages that it needs.
        done = subprocess.run(
            [sys.executable, str(target / "bin" / "score-sde"), "--mode", *arguments],
            cwd=elsewhere,
            env={**os.environ, "PYTHONPATH": str(target), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise ValueError(f"{path.name}: score-sde --mode {arguments[0]} failed:\n{done.stderr}")
    if not list(elsewhere.glob("runs/points/samples/*.npz")):
        raise ValueError(f"{path.name}: its command wrote no samples into the folder that it was called in")


def main() -> None:
    """Check the one source distribution and the one wheel in dist/."""
    (sdist,), (wheel,) = (list((ROOT / "dist").glob(pattern)) for pattern in ("*.tar.gz", "*.whl"))
    check_sdist(sdist)
    check_top_level(wheel)
    with tempfile.TemporaryDirectory() as folder:
        check_wheel(wheel, Path(folder))
    print(f"{sdist.name} and {wheel.name} are complete")


if __name__ == "__main__":
    main()
