"""Files of a run: models that rebuild themselves, and training states, both written whole or not at all."""

import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from sde.files import remove, write_whole
from sde.parallel import World
from sde.spec import build

FORMAT = "1"
WRAPPERS = re.compile(r"(?<![^.])(module|_orig_mod)\.")
"""Parts of names that DistributedDataParallel and torch.compile put in."""
KEPT = 2
"""Training states kept in a run folder, so that a damaged newest one costs little."""


def save_model(path: Path, kind: str, spec: dict, state: dict[str, Tensor], world: World | None = None) -> None:
    """Weights, with what rebuilds the model as JSON in their metadata; ``kind`` is a key of BUILDERS. Of several
    processes every one must call this, and the first writes."""
    world = world or World()
    state = world.collect(state)
    # One key, because the order of several would differ from write to write.
    metadata = {"score_sde": json.dumps({"format": FORMAT, "kind": kind, "spec": spec})}
    content = {name: value.contiguous() for name, value in state.items()}
    world.share(lambda: write_whole(path, to_safetensors(content, metadata)))


def load_model(path: Path, kind: str = "denoiser") -> nn.Module:
    """The model of a file of ``save_model``, or of a training state (``Checkpoints``), which has the averaged weights
    that such a file of its step has; in eval mode on the CPU. Raises ValueError for a missing, damaged or other kind of
    file, and for the folder of a sharded state."""
    about, state = read_model(path)
    if (about.get("format"), about.get("kind")) != (FORMAT, kind):
        held = f"a {about['kind']} in format {about['format']}" if about else "no model of this project"
        raise ValueError(f"{path} holds {held}: needs a {kind} in format {FORMAT}")
    model = build(kind, about["spec"])
    known = model.state_dict().keys()
    try:
        model.load_state_dict(
            {name if name in known else WRAPPERS.sub("", name): value for name, value in state.items()}
        )
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit its own description ({str(error).splitlines()[-1].strip()})") from None
    return model.eval()


def read_model(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """What ``load_model`` makes a model of: its "format", "kind" and "spec", none for a safetensors file that is not of
    this project, and its weights."""
    if not path.exists():
        raise ValueError(f"{path} does not exist: train first, or name another --workdir")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, as the states of sharded modules are: name a model.safetensors")
    try:
        return _stored(path)
    except (SafetensorError, OSError) as error:
        return _averaged(path, str(error))


def _stored(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """What describes the model of a safetensors file, empty for one that is not of this project, and its weights."""
    with safe_open(path, "pt") as file:
        about = json.loads((file.metadata() or {}).get("score_sde", "{}"))
        return about, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)


def _averaged(path: Path, reason: str) -> tuple[dict, dict[str, Tensor]]:
    """What describes the model of a training state, and its averaged weights with the module's buffers. Raises
    ValueError for any other file; ``reason`` says why it is no safetensors file."""
    try:
        held = _read_state(path)
    except Exception as error:
        if zipfile.is_zipfile(path):
            # What torch says of pickles that it refuses is a page, and tells how to run them.
            reason = str(error) if isinstance(error, OSError) else f"{type(error).__name__} where torch reads it"
        raise ValueError(f"{path} is damaged or not a safetensors file ({reason}): name a model.safetensors") from None
    if not isinstance(held, dict):
        raise ValueError(f"{path} is a file of torch.save with a {type(held).__name__}: name a model.safetensors")
    if not {"spec", "module", "ema"} <= held.keys():
        name = "an optimizer's state" if {"state", "param_groups"} <= held.keys() else "a file of torch.save"
        raise ValueError(f"{path} is {name} with {', '.join(map(str, held))[:80]}: name a model.safetensors")
    spec, module = json.loads(held["spec"]), held["module"]
    average = {name: value.to(module[name].dtype) for name, value in held["ema"]["average"].items()}
    kind = "denoiser" if "parametrization" in spec else "classifier"
    return {"format": held["format"], "kind": kind, "spec": spec}, module | average


def _read_state(path: Path) -> Any:
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
    ``weights_only=True``, or of sharded modules folders ``<name>-<step>`` (sde.states). Of several processes every
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
            from sde.states import write_shards

            write_shards(path, state, self.world)

        def finish() -> None:
            if not sharded:
                buffer = io.BytesIO()
                torch.save(state, buffer)
                write_whole(path, buffer.getvalue())
            # Later ones were passed over, or they would have been gone on from.
            later = [old for old in self.paths() if _step(old) > state["step"]]
            for old in [*later, *self.paths()[len(later) + KEPT :]]:
                remove(old)

        self.world.share(finish)
        return path

    def load(self, like: Callable[[], dict] = dict) -> tuple[dict | None, list[str]]:
        """The newest state that every process can read, or None where there are no states, and a sentence about each
        one passed over. What is read from folders is sharded as the state ``like()``. Raises ValueError where none of
        them reads, and where processes see other ones."""
        paths = self.paths()
        passed: list[str] = []
        if any(seen != paths for seen in self.world.gather(paths)):
            raise ValueError(f"not all processes see the checkpoints in {self.folder}: use a --workdir that they share")
        for path in paths:
            state, failure = None, None
            try:
                state = self._read(path, like)
            except Exception as error:
                failure = type(error).__name__
            failures = [other for other in self.world.gather(failure) if other]
            if not failures:
                return state, passed
            passed.append(f"{path} is damaged or cannot be read ({failures[0]}) and was passed over")
        if passed:
            raise ValueError(
                f"{'; '.join(passed)}: none is left to go on from; restore one, or train into a new --workdir"
            )
        return None, passed

    def _read(self, path: Path, like: Callable[[], dict]) -> dict:
        if path.is_dir():
            from sde.states import read_shards

            return read_shards(path, like(), self.world)
        return _read_state(path)
