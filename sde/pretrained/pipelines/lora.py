"""LoRA merged at load: the weights of a pipeline's network and text encoders, updated by files of others."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sde.networks.lora import layers_of, updated_weight
from sde.pretrained.pipelines.lora_files import NETWORK, FileUpdate, flat, read_lora

RESNET = {"conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1",
          "conv_shortcut": "skip_connection"}  # fmt: skip
"""Layers of a residual block, and what the networks that Stable Diffusion was published with call them."""

OUTSIDE = {"conv_in": "input_blocks.0.0", "conv_out": "out.2", "time_embedding.linear_1": "time_embed.0",
           "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
           "add_embedding.linear_2": "label_emb.0.2"}  # fmt: skip
"""The same of the layers outside of blocks."""


def merge_lora(parts: Mapping[str, nn.Module], path: Path | str, scale: float = 1.0) -> int:
    """Put W + scale (alpha / r) B A in the place of weights W, in place, for the updates that ``read_lora`` finds at
    ``path``; how many layers there are of them is returned. Several files add up.

    ``parts`` are the modules that may be updated: NETWORK, and text encoders by their names in a pipeline. Layers are
    found by diffusers' names, and those of a U-Net by the names of Stable Diffusion's own networks as well. Raises
    ValueError, before any weight is changed, for updates of a part or a layer that there is not, and of other shapes.
    """
    changes = []
    for part, updates in read_lora(Path(path)).items():
        if part not in parts:
            raise ValueError(f"{path} has updates of {part}, which this model has not: it has {' and '.join(parts)}")
        layers = _by_name(parts[part])
        unknown = [name for name in updates if name not in layers]
        if unknown:
            more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
            raise ValueError(
                f"{path} updates layers that the {part} of this model has not: {', '.join(unknown[:3])}{more}; it is "
                "of another model"
            )
        changes += [(layers[name], _checked(path, name, layers[name], update)) for name, update in updates.items()]
    with torch.no_grad():
        for layer, update in changes:
            place, trained = layer.weight.device, layer.weight.requires_grad
            down, up = update.whole_down.to(place), update.up.to(place)
            merged = updated_weight(layer.weight, down, up, scale * update.scale)
            layer.weight = nn.Parameter(merged, requires_grad=trained)
    return len(changes)


def _by_name(module: nn.Module) -> dict[str, Any]:
    """The layers of a module by their flat names, and of a U-Net by its older ones as well."""
    layers = layers_of(module)
    found = {flat(name): layer for name, layer in layers.items()}
    per_block = getattr(getattr(module, "config", None), "layers_per_block", None)
    if isinstance(per_block, int):
        attended = {name.split(".attentions.")[0] for name in layers if ".attentions." in name}
        for name, layer in layers.items():
            for other in original_names(name, per_block, attended):
                found.setdefault(flat(other), layer)
    return found


def original_names(name: str, per_block: int, attended: set[str]) -> Iterator[str]:
    """What the networks that Stable Diffusion was published with call a layer of diffusers' UNet2DConditionModel, whose
    blocks have ``per_block`` residual layers, and those of ``attended`` attention."""
    if name in OUTSIDE:
        yield OUTSIDE[name]
    middle = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}
    if found := re.fullmatch(r"mid_block\.(\w+\.\d+)\.(.+)", name):
        if found[1] in middle:
            yield f"middle_block.{middle[found[1]]}.{_inside(found[2])}"
    elif found := re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", name):
        way, block, kind, number = found[1], int(found[2]), found[3], int(found[4])
        stages = "input_blocks" if way == "down" else "output_blocks"
        first = block * (per_block + 1) + (way == "down")
        if kind in ("resnets", "attentions"):
            yield f"{stages}.{first + number}.{int(kind == 'attentions')}.{_inside(found[5])}"
        elif kind == "downsamplers":
            yield f"{stages}.{first + per_block}.0.op"
        elif kind == "upsamplers":
            yield f"{stages}.{first + per_block}.{1 + (f'up_blocks.{block}' in attended)}.conv"


def _inside(layer: str) -> str:
    return RESNET.get(layer, layer)


def _checked(path: Path | str, name: str, layer: Any, update: FileUpdate) -> FileUpdate:
    """The update. Raises ValueError where its product has not the layer's shape."""
    out, inner = update.up.flatten(1).shape, update.whole_down.flatten(1).shape
    weight = layer.weight
    if out[0] != weight.shape[0] or out[1] != inner[0] or inner[1] != weight[0].numel():
        raise ValueError(
            f"{path} updates {name} by B of shape {tuple(update.up.shape)} and A of shape {tuple(update.down.shape)}, "
            f"and that layer's weight has {tuple(weight.shape)}: it is of another model"
        )
    return update


__all__ = ["NETWORK", "merge_lora", "original_names", "read_lora"]
