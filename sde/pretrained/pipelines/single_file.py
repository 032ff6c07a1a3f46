"""Single files: all weights of a pipeline in one, by the names of the networks that were published first."""

from pathlib import Path
from typing import Any

import torch

from sde.files import read_json
from sde.networks.diffusers_network import diffusers_library
from sde.pretrained.contents import read_contents
from sde.pretrained.pipelines.loading import without_bars

KINDS = {
    "conditioner.embedders.1.": "StableDiffusionXLPipeline",
    "conditioner.embedders.0.": "StableDiffusionXLImg2ImgPipeline",
    "model.diffusion_model.joint_blocks.": "StableDiffusion3Pipeline",
    "model.diffusion_model.": "StableDiffusionPipeline",
}
"""The class of pipeline by what names of weights begin with, the first that fits."""


def read_single_file(path: Path, dtype: torch.dtype | None = None, config: str | Path | None = None) -> Any:
    """The pipeline of diffusers of a single file. Its networks are those of ``config``, a folder with the configs,
    tokenizers and scheduler of a pipeline of the same kind, with weights or without; where it is None diffusers takes
    those that it finds by the weights, in its cache or at the hub. Raises ValueError for a file that is none of these,
    and where no config is found."""
    library = diffusers_library()
    kind: Any = getattr(library, _kind_of(path) if config is None else _kind_said(Path(config)), None)
    if not hasattr(kind, "from_single_file"):
        raise ValueError(f"config = {config}: its pipelines are not loaded from single files by diffusers")
    told = {"local_files_only": True, "dtype": dtype or torch.float32, "safety_checker": None}
    if config is not None:
        told["config"] = str(config)
    try:
        with without_bars():
            return kind.from_single_file(str(path), **told)
    # What is missing is told by many kinds of errors, of files and of the network.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        remedy = (
            ": a single file does not hold configs and tokenizers; name a folder of a pipeline of its kind by `config`"
            if config is None
            else f" by the configs in {config}"
        )
        raise ValueError(f"{path} was not loaded as a single file{remedy} ({reason})") from error


def _kind_said(folder: Path) -> str:
    index = folder / "model_index.json"
    if not index.is_file():
        raise ValueError(f"config = {folder}: has no model_index.json; needs the folder of a pipeline")
    return str(read_json(index).get("_class_name"))


def _kind_of(path: Path) -> str:
    contents = read_contents(path)
    names = [*(contents.tensors() or contents.tensors("state_dict"))]
    for begin, kind in KINDS.items():
        if any(name.startswith(begin) for name in names):
            return kind
    held = ", ".join(names[:3]) or "no tensors"
    raise ValueError(f"{path} is no single file of a pipeline: it holds {held}, and no model.diffusion_model")
