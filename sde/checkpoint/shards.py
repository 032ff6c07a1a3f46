"""Training states of sharded modules, as folders of torch.distributed.checkpoint."""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from sde.distributed.world import World
from sde.files import write_whole

DIGESTS = "digests.json"
"""The file in a folder with the SHA-256 of the others: torch takes tensors as they are, also with a bit flipped."""


def write_shards(path: Path, state: dict, world: World) -> None:
    """Write a state as a folder, each process its part, and all of it or nothing.

    Every process must call this. Raises OSError in all of them where one could not write.
    """
    # As sde.files.remove_partial knows it.
    temporary = path.with_name(f".{path.name}.0")

    def clear() -> None:
        shutil.rmtree(temporary, ignore_errors=True)

    def finish() -> None:
        write_whole(temporary / DIGESTS, json.dumps(digests, indent=2).encode())
        shutil.rmtree(path, ignore_errors=True)
        temporary.replace(path)

    world.broadcast_from_main(clear)
    planner = dcp.DefaultSavePlanner(flatten_state_dict=False)
    try:
        dcp.save(dict(_flat(state)), storage_writer=dcp.FileSystemWriter(temporary), planner=planner)
        digests = _digests(temporary, world.broadcast_from_main(lambda: sorted(os.listdir(temporary))), world)
        world.broadcast_from_main(finish)
    except (CheckpointException, OSError) as error:
        world.broadcast_from_main(clear)
        raise OSError(_first_failure(error)) from None


def read_shards(path: Path, like: dict, world: World) -> dict:
    """The state in a folder of ``write_shards``, its tensors split over the processes as those of ``like``, which need
    not be as many as wrote it. Every process must call this.

    Of tensors that ``like`` has not, or in another shape, there is the shape alone (on the device "meta"). Raises
    OSError for damaged folders, down to a single bit, in all processes. The parts that are no tensors are pickled: read
    only folders that you trust.
    """
    _verify(path, world)
    found, mine = dcp.FileSystemReader(path).read_metadata().state_dict_metadata, dict(_flat(like))
    state: dict[str, Any] = {}
    for key, entry in found.items():
        own = mine.get(key)
        if not isinstance(entry, TensorStorageMetadata):
            state[key] = None
        elif isinstance(own, Tensor) and own.shape == entry.size:
            state[key] = torch.empty_like(own)
        else:
            state[key] = torch.empty(entry.size, device="meta")
    read = {key: value for key, value in state.items() if value is None or not value.is_meta}
    planner = dcp.DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
            dcp.load(read, storage_reader=dcp.FileSystemReader(path), planner=planner)
    except CheckpointException as error:
        raise OSError(_first_failure(error)) from None
    return _nested(state | read)


def _digests(folder: Path, names: list[str], world: World) -> dict[str, str]:
    """The SHA-256 of files of a folder, of which each process reads its part. Raises OSError in all processes where one
    could not read."""
    mine: list[tuple[str, str]] = []
    failure = ""
    try:
        for name in names[world.rows(len(names))]:
            with open(folder / name, "rb") as file:
                mine.append((name, hashlib.file_digest(file, "sha256").hexdigest()))
    except OSError as error:
        failure = str(error)
    failures = [other for other in world.all_gather(failure) if other]
    if failures:
        raise OSError(failures[0])
    return dict(world.all_gather_flat(mine))


def _verify(folder: Path, world: World) -> None:
    def listed() -> dict[str, str]:
        try:
            return json.loads((folder / DIGESTS).read_bytes())
        except ValueError as error:
            raise OSError(f"{DIGESTS}: {error}") from None

    written = world.broadcast_from_main(listed)
    found = _digests(folder, sorted(written), world)
    changed = [name for name in written if written[name] != found[name]]
    if changed:
        raise OSError(f"{', '.join(changed)} changed since it was written")


def _first_failure(error: CheckpointException | OSError) -> str:
    if isinstance(error, OSError):
        return str(error)
    failure, _ = next(iter(error.failures.values()))
    return str(failure) or type(failure).__name__


def _flat(state: dict, path: tuple = ()) -> Iterator[tuple[str, object]]:
    for key, value in state.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, (*path, key))
        else:
            yield "/".join(map(str, (*path, key))), value


def _nested(flat: dict[str, object]) -> dict:
    """The inverse of ``_flat``: keys of digits alone are the numbers that optimizers give to parameters."""
    state: dict = {}
    for path, value in flat.items():
        *above, last = (int(key) if key.isdigit() else key for key in path.split("/"))
        inner = state
        for key in above:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return state
