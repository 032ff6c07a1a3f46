"""The base of low-rank updates: another model's file, to which one refers that holds the updates alone."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sde.files import file_digest
from sde.model.denoiser import Denoiser
from sde.networks.lora import base_names
from sde.pretrained.pipelines import load_pipeline

UPDATE = re.compile(r"\.lora_[AB]\.weight$")
"""What the names of the weights of updates end in."""


def describe_base(path: Path) -> dict[str, str]:
    """The file of a base, as a spec refers to it under "base": where it lies, and the sha256 of its content."""
    return {"file": str(path.absolute()), "sha256": file_digest(path)}


def describe_pipeline(folder: Path, size: Sequence[int]) -> dict[str, Any]:
    """A pipeline as a base: the folder, the height and width of its pictures, and a digest of its network's weights."""
    return {"pipeline": str(folder.absolute()), "size": list(size), "sha256": _digest_of_network(folder)}


def load_base_pipeline(base: Mapping[str, Any]) -> Denoiser:
    """The denoiser of a pipeline that is a base. Raises ValueError where it is not there, or another one now."""
    folder = Path(base["pipeline"])
    if not folder.is_dir():
        raise ValueError(
            f"the low-rank updates are of the pipeline in {folder}, which does not exist: put it back there"
        )
    if _digest_of_network(folder) != base["sha256"]:
        raise ValueError(
            f"the low-rank updates are of the pipeline that was in {folder}, and there is another one now: put the old "
            "one back"
        )
    return load_pipeline(folder, size=tuple(base["size"]))


def _digest_of_network(folder: Path) -> str:
    found = hashlib.sha256()
    for part in ("unet", "transformer"):
        for file in sorted((folder / part).glob("*.safetensors")) or sorted((folder / part).glob("*.bin")):
            found.update(f"{part}/{file.name} {file_digest(file)}".encode())
    return found.hexdigest()


def find_base(path: Path, base: Mapping[str, str]) -> Path:
    """The file of the ``base`` that the model file ``path`` refers to: where it was, or in a folder of its old name
    beside that of ``path``, or beside the folder around it, as of averages and states within a run. Raises ValueError
    where it is in none of these, and where it is another file now."""
    there, above = Path(base["file"]), [*path.absolute().parents][1:3]
    places = [folder / there.parent.name / there.name for folder in above]
    found = next((file for file in (there, *places) if file.is_file()), None)
    if found is None:
        raise ValueError(
            f"{path} holds low-rank updates of the weights in {there}, which does not exist: put them back there, or "
            f"beside the run as {there.parent.name}/{there.name}"
        )
    if file_digest(found) != base["sha256"]:
        raise ValueError(
            f"{path} holds low-rank updates of the weights that were in {there}, and {found} is another file now: put "
            "the old one back"
        )
    return found


def own_weights(spec: Mapping, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a file holds of a model's state: all of it, or of a spec with a base the weights of the updates."""
    if "base" not in spec:
        return state
    return {name: value for name, value in state.items() if UPDATE.search(name)}


def with_base(state: Mapping[str, Tensor], base: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a ``model`` with updates, of the weights ``state`` of these and those of its base by the names
    that they have there. Raises ValueError, with the first three, where the base has not the weights of the model."""
    names, here = base_names(model), model.state_dict()
    unlike = [
        f"{old} is {tuple(base[old].shape) if old in base else 'not'} there, {tuple(here[name].shape)} here"
        for name, old in names.items()
        if old not in base or base[old].shape != here[name].shape
    ]
    unlike += [f"{old} is there, not here" for old in base if old not in {*names.values()}]
    if unlike:
        more = f" and {len(unlike) - 3} more" if len(unlike) > 3 else ""
        raise ValueError(f"the base is of another model: {'; '.join(unlike[:3])}{more}")
    return {name: base[old] for name, old in names.items()} | {**state}


def merged_spec(spec: Mapping) -> dict:
    """What describes a model whose updates are merged."""
    return {name: value for name, value in spec.items() if name not in ("lora", "base")}
