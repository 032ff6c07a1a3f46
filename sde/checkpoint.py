"""Files of a run: models that rebuild themselves, and training states, both written whole or not at all."""

import dataclasses
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from sde.model import Denoiser, NoisyClassifier
from sde.networks import CLASSIFIERS, NETWORKS
from sde.process import SDE, SDES
from sde.transform import Transform

FORMAT = "1"
KEPT = 2
"""Training states kept in a run folder, so that a damaged newest one costs little."""


def describe_sde(sde: SDE) -> dict:
    """An SDE as plain values: its name in SDES and its parameters."""
    name = next((name for name, kind in SDES.items() if kind is type(sde)), None)
    if name is None or not dataclasses.is_dataclass(sde):
        raise ValueError(f"{type(sde).__name__} cannot be stored: make it a frozen dataclass and add it to SDES")
    return {"name": name, **dataclasses.asdict(sde)}


def build_sde(description: dict) -> SDE:
    """The inverse of ``describe_sde``. Raises ValueError for unknown names and parameters."""
    options = dict(description)
    return construct(SDES, "config.sde.name", options.pop("name"), options)


def construct(table: dict, key: str, name: str, options: dict, *arguments):
    """table[name](*arguments, **options), or a ValueError that names the key and what is allowed."""
    if name not in table:
        raise ValueError(f"{key} = {name!r}: needs one of {', '.join(table)}")
    try:
        return table[name](*arguments, **options)
    except (TypeError, RuntimeError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"{key} = {name!r} does not take these options ({error})") from None


def build_denoiser(spec: dict) -> Denoiser:
    """A denoiser with fresh weights from plain values; ``spec`` has the keys network, event_shape, num_classes, sde,
    parametrization, sigma_data, transform and null_trained."""
    options = dict(spec["network"])
    network = construct(
        NETWORKS, "config.model.network", options.pop("name"), options, spec["event_shape"], spec["num_classes"]
    )
    return Denoiser(
        network,
        build_sde(spec["sde"]),
        spec["parametrization"],
        spec["sigma_data"],
        Transform(**spec["transform"]),
        spec["null_trained"],
        spec["event_shape"],
    )


def build_classifier(spec: dict) -> NoisyClassifier:
    """A classifier with fresh weights; ``spec`` has the keys network, event_shape, num_classes, sde and sigma_data."""
    options = dict(spec["network"])
    network = construct(
        CLASSIFIERS, "config.classifier.network", options.pop("name"), options, spec["event_shape"], spec["num_classes"]
    )
    return NoisyClassifier(network, build_sde(spec["sde"]), spec["sigma_data"])


BUILDERS: dict[str, Callable[[dict], nn.Module]] = {"denoiser": build_denoiser, "classifier": build_classifier}


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a crash at any moment leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_model(path: Path, kind: str, spec: dict, state: dict[str, Tensor]) -> None:
    """Weights, with what rebuilds the model as JSON in their metadata; ``kind`` is a key of BUILDERS."""
    # One key, because the order of several would differ from write to write.
    metadata = {"score_sde": json.dumps({"format": FORMAT, "kind": kind, "spec": spec})}
    write_whole(path, to_safetensors({k: v.contiguous().cpu() for k, v in state.items()}, metadata))


def load_model(path: Path, kind: str = "denoiser") -> nn.Module:
    """The model of a file, in eval mode on the CPU. Raises ValueError for a missing, damaged or other kind of file."""
    if not path.exists():
        raise ValueError(f"{path} does not exist: train first, or name another --workdir")
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("score_sde", "{}"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error})") from None
    if (about.get("format"), about.get("kind")) != (FORMAT, kind):
        held = f"a {about['kind']} in format {about['format']}" if about else "no model of this project"
        raise ValueError(f"{path} holds {held}: needs a {kind} in format {FORMAT}")
    # The fresh weights are thrown away: their random numbers are nobody's.
    with torch.random.fork_rng(devices=[]):
        model = BUILDERS[kind](about["spec"])
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit its own description ({str(error).splitlines()[-1].strip()})") from None
    return model.eval()


class Checkpoints:
    """Training states ``<name>-<step>.pt`` in a folder, the last two kept; they load with ``weights_only=True``."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name

    def paths(self) -> list[Path]:
        """The states, newest first."""
        found = [p for p in self.folder.glob(f"{self.name}-*.pt") if p.stem.rsplit("-", 1)[1].isdigit()]
        return sorted(found, key=lambda p: int(p.stem.rsplit("-", 1)[1]), reverse=True)

    def save(self, state: dict) -> Path:
        """Write a state, which has a "step", then remove all but the newest two."""
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, **state}, buffer)
        path = self.folder / f"{self.name}-{state['step']:08d}.pt"
        write_whole(path, buffer.getvalue())
        for old in self.paths()[KEPT:]:
            old.unlink()
        return path

    def load(self) -> tuple[dict | None, list[str]]:
        """The newest readable state, or None, and a sentence about each one passed over because it is damaged."""
        passed = []
        for path in self.paths():
            try:
                return torch.load(path, map_location="cpu", weights_only=True), passed
            except Exception as error:
                passed.append(f"{path} is damaged ({type(error).__name__}) and was passed over")
        return None, passed
