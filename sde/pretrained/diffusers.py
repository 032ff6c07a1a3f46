"""diffusers: folders as its ``save_pretrained`` writes them, of a pipeline or of one model."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from sde.data.transform import Transform
from sde.model.noise_input import NoiseInput
from sde.networks.diffusers_network import KINDS
from sde.pretrained.contents import Contents, read_contents, read_described
from sde.pretrained.diffusers_scheduler import OPTIONS, read_scheduler
from sde.pretrained.facts import Facts
from sde.pretrained.foreign import AS_PUBLISHED, Foreign, empty_network, pixels
from sde.pretrained.names.theirs import Theirs, translate

__all__ = ["OPTIONS", "PROJECT", "read", "recognizes"]

PROJECT = "huggingface/diffusers; the licence is that of the model's own page"

PARTS = ("unet", "transformer", ".")
"""The folders of a pipeline that hold its network; of a model by itself, the folder."""

FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors",
         "diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.bin")  # fmt: skip
"""The files of weights, the first that there is."""

AUTOENCODERS = ("vae", "vqvae", "movq")
"""The folders of a pipeline's autoencoder."""

SEQUENCE_LENGTH = 77
"""Tokens of the sequence that a network attends to where nothing says it, those of CLIP; it may have any number."""

OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of the layers of attention before diffusers 0.15, and today."""


def recognizes(contents: Contents) -> bool:
    """Whether it is a folder with the config of a network of diffusers, or of a pipeline."""
    return contents.kind == "folder" and any(_config(contents, part) is not None for part in PARTS)


def read(contents: Contents, weights: str, facts: Facts) -> Foreign:
    """Its network, wrapped, on the process of its scheduler; ``weights`` "ema" takes unet_ema where there is one."""
    parts = [part for part in PARTS if _config(contents, part) is not None]
    part = parts[0]
    config = _config(contents, part) or {}
    if weights == "ema" and _config(contents, f"{part}_ema") is not None:
        part = f"{part}_ema"
    kind, channels = config["_class_name"], config.get("in_channels", 4)
    size = config.get("sample_size", 32)
    event_shape = (channels, *(size if isinstance(size, list) else (size, size)))
    scheduler = contents.data.get("scheduler/scheduler_config.json", {})
    scheduled = read_scheduler(scheduler, facts)
    settings = json.dumps({name: value for name, value in config.items() if not name.startswith("_")})
    network: dict[str, Any] = {"name": "diffusers", "kind": kind, "settings": settings}
    classes = _classes(kind, config)
    width = config.get("cross_attention_dim") if kind == "UNet2DConditionModel" else None
    conditions = {"sequence": (SEQUENCE_LENGTH, width or 1280)} if kind == "UNet2DConditionModel" else {}
    state = _state(contents.path / part, network, event_shape, classes)
    # A DiT knows the whole steps alone.
    rounding = "nearest" if kind == "DiTTransformer2DModel" else None
    return Foreign(
        network=network,
        event_shape=event_shape,
        num_classes=classes,
        sde=scheduled.sde,
        state=state,
        parametrization=scheduled.parametrization,
        sigma_data=1.0,
        noise_input=NoiseInput("time", scheduled.steps, rounding=rounding),
        scaled_input=False,
        # Of a network of latents what they mean is the autoencoder's.
        transform=pixels() if channels in (1, 3) and not _of_latents(contents) else Transform(),
        null_trained=not conditions and (kind == "DiTTransformer2DModel" or not classes),
        conditions=conditions,
        levels=scheduled.levels,
        origin=scheduled.about | ({} if part.endswith("_ema") else {"weights": AS_PUBLISHED}),
    )


def _of_latents(contents: Contents) -> bool:
    """Whether a pipeline has an autoencoder: its network is of latents, which may have three channels."""
    index = contents.data.get("model_index.json")
    listed = {name for name, of in index.items() if of and of != [None, None]} if isinstance(index, dict) else set()
    return any(name in listed or f"{name}/config.json" in contents.data for name in AUTOENCODERS)


def _config(contents: Contents, part: str) -> dict[str, Any] | None:
    found = contents.data.get("config.json" if part == "." else f"{part}/config.json")
    return found if isinstance(found, dict) and found.get("_class_name") in KINDS else None


def _classes(kind: str, config: dict[str, Any]) -> int | None:
    if kind == "DiTTransformer2DModel":
        return config.get("num_embeds_ada_norm", 1000)
    return config.get("num_class_embeds")


def _state(
    folder: Path, network: dict[str, Any], event_shape: tuple[int, ...], classes: int | None
) -> dict[str, Tensor]:
    """The weights of a folder, of today's names, by ours."""
    tensors: dict[str, Tensor] = {}
    for path in _files(folder):
        tensors |= read_contents(path).tensors()
    theirs = {_today(name): value for name, value in tensors.items()}
    ours = empty_network(network, event_shape, classes).state_dict()
    return translate(theirs, {name: Theirs(name.removeprefix("model.")) for name in ours}, ours)


def _files(folder: Path) -> list[Path]:
    for name in FILES:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if index.is_file():
            return _indexed(index)
    raise ValueError(f"{folder} holds no weights: needs {' or '.join(FILES)}")


def _indexed(index: Path) -> list[Path]:
    """The files that an index names, which lie beside it."""
    found = read_described(index)
    named = found.get("weight_map") if isinstance(found, dict) else None
    parts = [*named.values()] if isinstance(named, dict) else []
    # Names of files beside the index, not of others.
    if not parts or not all(
        isinstance(part, str) and part not in ("", "..") and Path(part).name == part for part in parts
    ):
        raise ValueError(f"{index} has no weight_map of tensors to the names of files beside it: it may be damaged")
    return [index.parent / part for part in sorted({*parts})]


def _today(name: str) -> str:
    head, _, tail = name.rpartition(".")
    stem, _, layer = head.rpartition(".")
    return f"{stem}.{OLD_NAMES[layer]}.{tail}" if layer in OLD_NAMES and ".attentions." in name else name
