"""Components: the parts of a pipeline of diffusers, from a folder, a hub's name, or a pipeline in memory."""

import copy
import importlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sde.files import read_json
from sde.networks.diffusers_network import diffusers_library
from sde.pretrained.pipelines.loading import without_bars
from sde.pretrained.pipelines.lora_files import NETWORK
from sde.pretrained.pipelines.single_file import read_single_file

INDEX = "model_index.json"

OPTIONAL = ("safety_checker", "feature_extractor", "image_encoder", "watermark")
"""Parts of pipelines that are of no use here."""

DENOISERS = ("unet", "transformer")
"""The parts that may be the network."""

MARKS = (
    "config.json",
    "scheduler_config.json",
    "tokenizer_config.json",
    "vocab.json",
    "tokenizer.json",
    "spiece.model",
)
"""Files of which the folder of a part has at least one."""


@dataclass(frozen=True)
class Components:
    """``parts`` are the objects of diffusers and transformers by their names in a pipeline, ``options`` what its index
    says beside them; ``kind`` is the class of the pipeline and ``source`` where it comes from, in words."""

    parts: Mapping[str, Any]
    options: Mapping[str, Any]
    kind: str
    source: str
    controls: Sequence[Any] = ()
    """ControlNets, in their order."""

    @property
    def updatable(self) -> dict[str, Any]:
        """What low-rank updates may be of: the network, and text encoders by their names."""
        encoders = {name: part for name, part in self.parts.items() if name.startswith("text_encoder")}
        return {NETWORK: self.network, **encoders}

    @property
    def network(self) -> Any:
        """The network, of unet or transformer."""
        return next(self.parts[name] for name in DENOISERS if self.parts.get(name) is not None)

    def named(self, stem: str) -> list[Any]:
        """The parts ``stem``, ``stem``_2 and ``stem``_3, None for those that there are not."""
        return [self.parts.get(name) for name in (stem, f"{stem}_2", f"{stem}_3")]

    @property
    def scheduler(self) -> dict[str, Any]:
        """The config of the scheduler, with its class."""
        scheduler = self.parts["scheduler"]
        return {"_class_name": type(scheduler).__name__, **scheduler.config}


def read_components(source: Any, dtype: torch.dtype | None = None, config: str | Path | None = None) -> Components:
    """The parts of a pipeline: of a folder as ``save_pretrained`` writes it, of a hub's name, which diffusers resolves,
    or of a pipeline of diffusers in memory, whose parts are used as they are. ``dtype`` is that of the networks,
    float32 unless told otherwise; an autoencoder that overflows in float16 stays in float32, of a pipeline in memory a
    copy. A single file of weights is loaded by the folder ``config`` of a pipeline of its kind (``single_file``).
    Raises ValueError for a folder that is none, or has a part missing; for a name that is not found; and for a pipeline
    without network, autoencoder or scheduler. ImportError names the extra."""
    if not isinstance(source, str | Path):
        if not isinstance(source, _libraries().DiffusionPipeline):
            raise ValueError(f"{source!r} is no pipeline: needs a folder, a hub's name, or a pipeline of diffusers")
        return _of_pipeline(source, type(source).__name__)
    path = Path(source)
    if not path.is_file():
        # Before the libraries: who mistypes a name need not install them to be told.
        _check_named(source, config)
    library = _libraries()
    if path.is_file():
        return _of_pipeline(read_single_file(path, dtype, config), str(source))
    options: dict[str, Any] = {"dtype": dtype or torch.float32, **_variant(path), **_without(path)}
    try:
        with without_bars() if path.exists() else nullcontext():
            pipeline = library.DiffusionPipeline.from_pretrained(str(source), **options)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        told = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{source} was not loaded as a pipeline: {told}") from error
    return _of_pipeline(pipeline, str(source))


def _check_named(source: str | Path, config: str | Path | None) -> None:
    """Raise ValueError unless it is the folder of a pipeline, or may be a hub's name."""
    path = Path(source)
    if config is not None:
        raise ValueError(f"config = {config}: is for a single file of weights, and {source} is none; leave it out")
    if path.exists():
        check_folder(path)
    elif path.is_absolute() or str(source).count("/") != 1 or str(source).startswith((".", "~")):
        raise ValueError(f"{source} does not exist: needs the folder of a pipeline, with a {INDEX}, or a hub's name")


def _in_range(autoencoder: Any) -> Any:
    """An autoencoder, or where it overflows in float16 (its ``force_upcast``), a copy in float32: diffusers' pipelines,
    which share it, bring theirs there and back at each call."""
    if autoencoder.dtype == torch.float16 and autoencoder.config.get("force_upcast", False):
        return copy.deepcopy(autoencoder).to(torch.float32)
    return autoencoder


def _libraries() -> Any:
    """diffusers, where transformers is there, too."""
    library = diffusers_library()
    try:
        importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise ImportError(
            "pipelines with text need transformers installed: pip install 'score-sde[latent]', or pip install "
            "diffusers transformers"
        ) from None
    return library


def check_folder(folder: Path) -> None:
    """Raise ValueError unless a folder is a pipeline with all the parts that its index names."""
    if not (folder / INDEX).is_file():
        inside = "it is the part of a pipeline: name the folder above" if (folder.parent / INDEX).is_file() else (
            "a pipeline is a folder as save_pretrained writes it")  # fmt: skip
        raise ValueError(f"{folder} has no {INDEX}: {inside}")
    listed = _listed(folder)
    for name, kind in listed.items():
        if name not in OPTIONAL and not any((folder / name / mark).is_file() for mark in MARKS):
            raise ValueError(f"{folder} lacks the part {name} ({kind}), which its {INDEX} names")
    for names in (DENOISERS, ("vae",), ("scheduler",)):
        if not any(name in listed for name in names):
            raise ValueError(f"{folder} has no {' or '.join(names)} in its {INDEX}: it is no pipeline of latents")


def _listed(folder: Path) -> dict[str, str]:
    """The parts that an index names, with their classes."""
    try:
        index = read_json(folder / INDEX)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / INDEX} was not read: {error}") from None
    if not isinstance(index, dict):
        raise ValueError(f"{folder / INDEX} holds no dict: it may be damaged")
    pairs = {name: value for name, value in index.items() if isinstance(value, list) and len(value) == 2}
    return {name: str(kind) for name, (of, kind) in pairs.items() if not name.startswith("_") and of and kind}


def _without(folder: Path) -> dict[str, Any]:
    """What leaves out the parts of a folder that are of no use here."""
    if not folder.is_dir():
        return {}
    index = read_json(folder / INDEX)
    told = {"requires_safety_checker": False} if "requires_safety_checker" in index else {}
    return told | {name: None for name in OPTIONAL if name in _listed(folder)}


def _variant(folder: Path) -> dict[str, str]:
    """The variant of half precision, where a folder holds no other weights of its network."""
    if not folder.is_dir():
        return {}
    files = [path.name for name in DENOISERS for path in (folder / name).glob("diffusion_pytorch_model*")]
    return {"variant": "fp16"} if files and all(".fp16" in name for name in files) else {}


def _of_pipeline(pipeline: Any, source: str) -> Components:
    parts = {name: part for name, part in pipeline.components.items() if part is not None}
    for names in (DENOISERS, ("vae",), ("scheduler",)):
        if not any(name in parts for name in names):
            raise ValueError(f"{source} has no {' or '.join(names)}: it is no pipeline of latents")
    parts["vae"] = _in_range(parts["vae"])
    return Components(parts, dict(pipeline.config), type(pipeline).__name__, source)
