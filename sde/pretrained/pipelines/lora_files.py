"""LoRA files: low-rank updates of layers as others write them, by part of a pipeline and name of the layer."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sde.files import read_json
from sde.pretrained.contents import read_contents

FILES = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin", "adapter_model.safetensors",
         "adapter_model.bin", "model.safetensors")  # fmt: skip
"""What a folder is looked through for: diffusers' files, peft's, and that of a run of ours."""

NETWORK = "network"
"""The part whose updates are those of a pipeline's unet or transformer, whatever it is called."""

PARTS = {
    "unet.": NETWORK, "transformer.": NETWORK, "diffusion_model.": NETWORK, "lora_unet_": NETWORK,
    "lora_transformer_": NETWORK, "network.model.": NETWORK, "network.": NETWORK,
    "text_encoder.": "text_encoder", "text_encoder_2.": "text_encoder_2", "text_encoder_3.": "text_encoder_3",
    "lora_te_": "text_encoder", "lora_te1_": "text_encoder", "lora_te2_": "text_encoder_2",
    "lora_te3_": "text_encoder_3",
}  # fmt: skip
"""What names of layers begin with: in diffusers' files, in those of kohya's scripts, and in ours."""

ROLES = {
    "down": r"[._]lora\.down\.weight|\.lora_down\.weight|\.lora_linear_layer\.down\.weight|\.lora_A(\.\w+)?\.weight",
    "up": r"[._]lora\.up\.weight|\.lora_up\.weight|\.lora_linear_layer\.up\.weight|\.lora_B(\.\w+)?\.weight",
    "middle": r"\.lora_mid\.weight",
    "alpha": r"\.alpha",
}
"""How names of tensors end, by what they are: A leads down to the rank, and B up from it."""

PROCESSOR = re.compile(r"\.processor\.(to_[qkv]|to_out)$")
"""Names of layers as diffusers had them in its processors of attention, before 0.20."""

METADATA = "lora_adapter_metadata"
"""The key under which diffusers writes the options of peft into a file."""


@dataclass(frozen=True)
class FileUpdate:
    """The update scale B A of a layer: A ``down`` (r, in, *kernel) and B ``up`` (out, r, ...), and where a file splits
    A into two convolutions the second one, ``middle`` (r, r, *kernel), behind a ``down`` (r, in, 1, ...)."""

    down: Tensor
    up: Tensor
    middle: Tensor | None = None
    scale: float = 1.0

    @property
    def whole_down(self) -> Tensor:
        """A (r, in, *kernel), of both convolutions where there are two."""
        if self.middle is None:
            return self.down
        return torch.einsum("sr...,ri->si...", self.middle.float(), self.down.float().flatten(1))


Updates = dict[str, dict[str, FileUpdate]]
"""Updates by part and name of the layer, dots and underscores in it being one."""


def flat(name: str) -> str:
    """A layer's name as kohya's scripts write it, with underscores for dots, and without the module around all of a
    text encoder, which transformers had before version 5."""
    return name.replace(".", "_").removeprefix("text_model_")


def lora_file(path: Path) -> Path:
    """The file of updates at ``path``, which may be its folder. Raises ValueError where there is none."""
    if not path.is_dir():
        return path
    found = [path / name for name in FILES if (path / name).is_file()]
    others = sorted(path.glob("*.safetensors"))
    if not found and len(others) == 1:
        return others[0]
    if not found:
        held = f"{len(others)} .safetensors: name one of them" if others else f"none of {', '.join(FILES)}"
        raise ValueError(f"{path} is a folder with {held}")
    return found[0]


def read_lora(path: Path) -> Updates:
    """The updates in a file, or in the one of a folder: as diffusers and peft write them, as kohya's scripts do, and as
    runs of ours hold them. Their scale is alpha / r where the file, or the config beside it, says alpha, else 1. Raises
    ValueError for a file without any, and for what is more than an update: LoHa, LoKr, DoRA, biases."""
    file = lora_file(path)
    contents = read_contents(file)
    tensors = contents.tensors() or contents.tensors("state_dict")
    layers: dict[tuple[str, str], dict[str, Tensor]] = {}
    for name, value in tensors.items():
        role, end = _role(name)
        if role is None:
            raise ValueError(_unknown(file, name, tensors))
        layers.setdefault(_place(name[: -len(end)]), {})[role] = value
    if not any("down" in layer for layer in layers.values()):
        raise ValueError(f"{file} holds no low-rank updates: their names end in lora_A.weight or lora_down.weight")
    alphas = _Alphas(file, contents.metadata)
    updates: Updates = {}
    for (part, name), found in layers.items():
        updates.setdefault(part, {})[flat(name)] = _update(file, part, name, found, alphas)
    return updates


def _role(name: str) -> tuple[str | None, str]:
    for role, pattern in ROLES.items():
        if found := re.search(f"({pattern})$", name):
            return role, found[0]
    return None, ""


def _unknown(file: Path, name: str, tensors: Mapping[str, Tensor]) -> str:
    if any(_role(other)[0] == "down" for other in tensors):
        return f"{file} holds {name} beside its low-rank updates: updates of weights alone are merged, W + scale B A"
    return f"{file} holds no low-rank updates, but {name}: needs names that end in lora_A.weight or lora_down.weight"


def _place(name: str) -> tuple[str, str]:
    """The part of a pipeline that a layer belongs to, and its name there."""
    name = name.removeprefix("base_model.model.")
    begin = next((begin for begin in PARTS if name.startswith(begin)), "")
    inside = name.removeprefix(begin)
    if found := PROCESSOR.search(inside):
        inside = f"{inside[: found.start()]}.{found[1]}{'.0' * (found[1] == 'to_out')}"
    return PARTS.get(begin, NETWORK), inside


def _update(file: Path, part: str, name: str, found: Mapping[str, Tensor], alphas: "_Alphas") -> FileUpdate:
    missing = [role for role in ("down", "up") if role not in found]
    if missing:
        factor = {"down": "A (lora_A, lora_down)", "up": "B (lora_B, lora_up)"}[missing[0]]
        raise ValueError(f"{file} has no {factor} for the layer {name}: it is damaged, or not whole")
    down, up = found["down"], found["up"]
    rank = down.shape[0]
    if up.ndim < 2 or down.ndim < 2 or up.shape[1] != rank:
        raise ValueError(
            f"{file} has A of shape {tuple(down.shape)} and B of shape {tuple(up.shape)} for the layer {name}: needs "
            "(r, in) and (out, r)"
        )
    update = FileUpdate(down, up, found.get("middle"))
    if "alpha" in found:
        return replace(update, scale=found["alpha"].item() / rank)
    return replace(update, scale=alphas.scale(part, name, rank))


class _Alphas:
    """What beside the tensors says how updates are scaled: the metadata of a file, or peft's config beside it."""

    def __init__(self, file: Path, metadata: Mapping[str, str]) -> None:
        self.options: dict[str, Any] = {}
        beside = file.parent / "adapter_config.json"
        if METADATA in metadata:
            self.options = json.loads(metadata[METADATA])
        elif "score_sde" in metadata:
            about = json.loads(metadata["score_sde"]).get("spec", {}).get("lora", {})
            self.options = {"lora_alpha": about.get("alpha") or about.get("rank")}
        elif file.name.startswith("adapter_model") and beside.is_file():
            self.options = read_json(beside)

    def scale(self, part: str, name: str, rank: int) -> float:
        """alpha / r of a layer, or alpha / sqrt(r) where that is said; 1 where nothing is."""
        prefixes = ("unet.", "transformer.") if part == NETWORK else (f"{part}.",)
        told = {
            key.removeprefix(prefix): value
            for prefix in (*prefixes, "")
            for key, value in self.options.items()
            if key.startswith(prefix)
        }
        alpha = told.get("lora_alpha")
        for pattern, own in (told.get("alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", name):
                alpha = own
        return 1.0 if alpha is None else alpha / (rank**0.5 if told.get("use_rslora") else rank)
