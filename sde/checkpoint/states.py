"""Training states: what a continued run needs, kept in turn."""

import io
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sde.checkpoint.migration import current_state
from sde.distributed.world import World
from sde.files import remove, write_whole

FORMAT = "1"
STATES_KEPT = 2
"""Training states kept in a run folder, so that a damaged newest one costs little."""


def read_state(path: Path) -> Any:
    """What a file of torch.save holds: tensors and plain values. Raises many kinds of exceptions for other files."""
    # Opened here, as torch would go by the name's suffix.
    with open(path, "rb") as file, warnings.catch_warnings():
        # It takes tensors as they are, without a look at the checksums that it wrote.
        with zipfile.ZipFile(file) as archive:
            if archive.testzip() is not None:
                raise OSError("its checksums are wrong")
        file.seek(0)
        # Of pickles that it is not sure to read, it asks for an issue.
        warnings.simplefilter("ignore")
        return torch.load(file, map_location="cpu", weights_only=True)


def _step(path: Path) -> int:
    return int(path.stem.rsplit("-", 1)[1])


class Checkpoints:
    """Training states in a folder, the last two kept: files ``<name>-<step>.pt``, which load with
    ``weights_only=True``, or of sharded modules folders ``<name>-<step>`` (shards.py). Of several processes every
    one must save and load."""

    def __init__(self, folder: Path, name: str, world: World | None = None) -> None:
        self.folder, self.name, self.world = folder, name, world or World()

    def paths(self) -> list[Path]:
        """The states, newest first."""
        found = [p for p in self.folder.glob(f"{self.name}-*") if p.stem.rsplit("-", 1)[1].isdigit()]
        return sorted(found, key=_step, reverse=True)

    def save(self, state: dict, sharded: bool = False) -> Path:
        """Write a state, which has a "step", then remove all but the newest two."""
        state = {"format": FORMAT, **state}
        path = self.folder / f"{self.name}-{state['step']:08d}{'' if sharded else '.pt'}"
        if sharded:
            from sde.checkpoint.shards import write_shards

            write_shards(path, state, self.world)

        def finish() -> None:
            if not sharded:
                buffer = io.BytesIO()
                torch.save(state, buffer)
                write_whole(path, buffer.getvalue())
            # Later ones were passed over, or they would have been gone on from.
            later = [old for old in self.paths() if _step(old) > state["step"]]
            for old in [*later, *self.paths()[len(later) + STATES_KEPT :]]:
                remove(old)

        self.world.broadcast_from_main(finish)
        return path

    def load(self, like: Callable[[], dict] = dict) -> tuple[dict | None, list[str]]:
        """The newest state that every process can read, or None where there are no states, and a sentence about each
        one passed over. What is read from folders is sharded as the state ``like()``. Raises ValueError where none of
        them reads, and where processes see other ones."""
        paths = self.paths()
        passed: list[str] = []
        if any(seen != paths for seen in self.world.all_gather(paths)):
            raise ValueError(f"not all processes see the checkpoints in {self.folder}: use a `folder` that they share")
        for path in paths:
            state, failure = None, None
            try:
                state = self._read(path, like)
            except Exception as error:
                failure = type(error).__name__
            failures = [other for other in self.world.all_gather(failure) if other]
            if not failures:
                return state, passed
            passed.append(f"{path} is damaged or cannot be read ({failures[0]}) and was passed over")
        if passed:
            raise ValueError(
                f"{'; '.join(passed)}: none is left to go on from; restore one, or train into a new `folder`"
            )
        return None, passed

    def _read(self, path: Path, like: Callable[[], dict]) -> dict:
        if path.is_dir():
            from sde.checkpoint.shards import read_shards

            return current_state(read_shards(path, like(), self.world))
        return current_state(read_state(path))
