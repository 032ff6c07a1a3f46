"""Model files: weights, and in their metadata all that rebuilds the model."""

import json
import re
import zipfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, overload

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from sde.autoencoder import Autoencoder, LatentTransform
from sde.checkpoint.base import find_base, own_weights, with_base
from sde.checkpoint.migration import current_spec, current_state
from sde.checkpoint.spec import build, imports_of
from sde.checkpoint.states import FORMAT, read_state
from sde.checkpoint.tensors import open_tensors
from sde.checkpoint.tied import tied_names, untied
from sde.checkpoint.transforms import build_transform
from sde.condition.text import TextEncoder, build_text
from sde.device import building
from sde.distillation import FlowMap
from sde.distributed.world import World
from sde.files import whole
from sde.model.classifier import NoisyClassifier
from sde.model.denoiser import Denoiser
from sde.networks.lora import merge_low_rank

Stored = Denoiser | FlowMap | NoisyClassifier | Autoencoder
"""What model files hold."""

WRAPPERS = re.compile(r"(?<![^.])(module|_orig_mod)\.")
"""Parts of names that DistributedDataParallel and torch.compile put in."""


def save_model(path: Path, kind: str, spec: dict, state: dict[str, Tensor], world: World | None = None) -> None:
    """Weights, with what rebuilds the model as JSON in their metadata; ``kind`` is a key of BUILDERS. What has several
    names, as tied weights, is written once; of a spec with a base (``sde.checkpoint.base``) the updates alone are. Of
    several processes every one must call this, and the first writes."""
    world, state = world or World(), own_weights(spec, state)
    tied = tied_names(state, world)
    state = world.collect({name: value for name, value in state.items() if name not in tied})
    # One key, because the order of several would differ from write to write.
    about = {"format": FORMAT, "kind": kind, "spec": spec, **({"tied": tied} if tied else {})}
    metadata = {"score_sde": json.dumps(about)}
    # Tensors that share memory in another way are written one by one.
    content = {name: value.contiguous() for name, value in state.items()}
    places = Counter(value.untyped_storage().data_ptr() for value in content.values())
    content = {
        name: value.clone() if places[value.untyped_storage().data_ptr()] > 1 else value
        for name, value in content.items()
    }

    def write() -> None:
        with whole(path) as file:
            # By its name, as bytes to be written would be the weights once more.
            save_file(content, file.name, metadata)

    world.broadcast_from_main(write)


@overload
def load_model(path: Path, kind: Literal["denoiser"] = "denoiser", imports: Collection[str] = ()) -> Denoiser: ...
@overload
def load_model(path: Path, kind: Literal["classifier"], imports: Collection[str] = ()) -> NoisyClassifier: ...
@overload
def load_model(path: Path, kind: Literal["autoencoder"], imports: Collection[str] = ()) -> Autoencoder: ...
@overload
def load_model(path: Path, kind: Literal["flow_map"], imports: Collection[str] = ()) -> FlowMap: ...
@overload
def load_model(path: Path, kind: str, imports: Collection[str] = ()) -> Stored: ...
def load_model(path: Path, kind: str = "denoiser", imports: Collection[str] = ()) -> Stored:
    """The model of a file of ``save_model``, or of a training state (``Checkpoints``), which has the averaged weights
    that such a file of its step has; in eval mode on the CPU.

    A file must not choose what is imported: a network or process by import path, package.module:Class, is built where
    it is among ``imports``, those that the user named. Low-rank updates are merged with the weights that they are of.
    Raises ValueError for others, for a missing, damaged or other kind of file, for the folder of a sharded state, and
    where what is updated is missing or another.
    """
    model = load_unmerged(path, kind, imports)
    merge_low_rank(getattr(model, "network", model))
    return model


def load_unmerged(path: Path, kind: str = "denoiser", imports: Collection[str] = ()) -> Any:
    """``load_model`` with low-rank updates beside the weights that they are of, which are frozen."""
    about, state = read_model(path)
    if (about.get("format"), about.get("kind")) != (FORMAT, kind):
        held = f"a {about['kind']} in format {about['format']}" if about else "no model of this project"
        raise ValueError(f"{path} holds {held}: needs a {kind} in format {FORMAT}")
    foreign = sorted(imports_of(about["spec"]) - {*imports})
    if foreign:
        raise ValueError(
            f"{path} asks to import {' and '.join(foreign)}, and a file does not choose what code runs: where you "
            f"trust it, name {'them' if len(foreign) > 1 else 'it'} too, by `imports`"
        )
    model = build(kind, about["spec"])
    known = model.state_dict().keys()
    state = {name if name in known else WRAPPERS.sub("", name): value for name, value in state.items()}
    told = about["spec"].get("base")
    if told is not None and "pipeline" in told:
        # It was built with its weights.
        state = model.state_dict() | own_weights(about["spec"], state)
    elif told is not None:
        base = load_model(find_base(path, told), kind, imports)
        state = with_base(own_weights(about["spec"], state), base.state_dict(), model)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit its own description ({str(error).splitlines()[-1].strip()})") from None
    return model.eval()


def load_transform(path: Path, imports: Collection[str] = ()) -> LatentTransform | None:
    """The learned transform of the model in a file of ``save_model``, or of a training state, on the CPU; None where
    that has none. ``imports`` as in ``load_model``. Raises ValueError as that does."""
    about, state = read_model(path)
    described, told = about.get("spec", {}).get("transform", {}), about.get("spec", {}).get("base", {})
    if "autoencoder" not in described:
        return None
    if told:
        return load_transform(find_base(path, told), imports)
    foreign = sorted(imports_of({"transform": described}) - {*imports})
    if foreign:
        raise ValueError(f"{path} asks to import {foreign[0]}: where you trust it, name it too, by `imports`")
    with building():
        transform: Any = build_transform(described)
    transform.load_state_dict(_inside(state, "transform."))
    return transform


def load_text(path: Path) -> TextEncoder | None:
    """The text encoder of the model in a file of ``save_model``, or of a training state, on the CPU; None where that
    has none. Raises ValueError as ``read_model`` does."""
    spec = read_description(path).get("spec", {})
    described = spec.get("text")
    if described is None:
        return None
    if "base" in spec:
        return load_text(find_base(path, spec["base"]))
    with building():
        encoder = build_text(described)
    encoder.load_state_dict(_inside(read_model(path)[1], "text."))
    return encoder


def _inside(state: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """The weights of a part of a model, whose names begin so, by their names in it."""
    return {name.removeprefix(part): value for name, value in state.items() if name.startswith(part)}


def read_model(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """What ``load_model`` makes a model of: its "format", "kind" and "spec", none for a safetensors file that is not of
    this project, and its weights."""
    if not path.exists():
        raise ValueError(f"{path} does not exist: train first, or name another `folder`")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, as the states of sharded modules are: name a model.safetensors")
    try:
        return _stored(path)
    except (SafetensorError, OSError) as error:
        return _averaged(path, str(error))


def read_description(path: Path) -> dict:
    """The first of what ``read_model`` finds, without the weights where they need not be read."""
    try:
        with open_tensors(path) as file:
            return _about(file)
    except (SafetensorError, OSError):
        return read_model(path)[0]


def _stored(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """What describes the model of a safetensors file, empty for one that is not of this project, and its weights."""
    with open_tensors(path) as file:
        about = _about(file)
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        return about, untied(state, about.get("tied", {}))


def _about(file) -> dict:
    """What the metadata of an open safetensors file say of its model, as of today; nothing for another's file."""
    about = json.loads((file.metadata() or {}).get("score_sde", "{}"))
    if "spec" in about:
        about["spec"] = current_spec(about["spec"])
    return about


def _averaged(path: Path, reason: str) -> tuple[dict, dict[str, Tensor]]:
    """What describes the model of a training state, and its averaged weights with the module's buffers. Raises
    ValueError for any other file; ``reason`` says why it is no safetensors file."""
    try:
        held = read_state(path)
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
    spec, module = json.loads(current_state(held)["spec"]), held["module"]
    average = {name: value.to(module[name].dtype) for name, value in held["ema"]["average"].items()}
    telling = {"flow_map": "flow_map", "parametrization": "denoiser", "sde": "classifier"}
    kind = next((kind for key, kind in telling.items() if key in spec), "autoencoder")
    return {"format": held["format"], "kind": kind, "spec": spec}, module | untied(average, tied_names(module))
