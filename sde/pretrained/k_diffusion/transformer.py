"""What a file of k-diffusion's image_transformer_v2 tells of HDiT."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sde.pretrained.facts import of_kind
from sde.pretrained.foreign import empty_network
from sde.pretrained.k_diffusion.names import AUGMENT_DIM, transformer_names
from sde.pretrained.k_diffusion.settings import Settings, Told
from sde.pretrained.names.theirs import numbered, translate

ATTENTIONS = {"global": "", "neighborhood": "kernel_size", "shifted-window": "window_size", "none": ""}
"""Types of attention, and what they call its size."""


def read_transformer(tensors: Mapping[str, Tensor], settings: Settings) -> Told:
    """Depths, widths, heads, classes and the mapping network are told by names and shapes; images, patches and the
    types of attention by the config or the facts."""
    levels = _levels(tensors)
    widths = settings.of("widths", [down.shape[0] for _, down, _ in levels])
    patch = settings.of("patch_size")
    patch = [patch, patch] if isinstance(patch, int) else [*of_kind("patch_size", patch, tuple)]
    if len(patch) != 2:
        raise ValueError(f"facts: patch_size = {patch}: needs one side, or height and width, as [4, 4]")
    channels = settings.of("input_channels", kind=int)
    classes = tensors["class_emb.weight"].shape[0] - 1 if "class_emb.weight" in tensors else 0
    num_classes = settings.of("num_classes", classes) or None
    vector = tensors["mapping_cond_in_proj.weight"].shape[1] if "mapping_cond_in_proj.weight" in tensors else 0
    vector = settings.of("mapping_cond_dim", vector)
    hidden, blocks = tensors["mapping.in_norm.scale"].shape[0], numbered(tensors, "mapping.blocks.")
    network: dict[str, Any] = {
        "name": "hdit",
        "patch_size": patch[:1] if patch[0] == patch[1] else patch,
        "widths": widths,
        "depths": settings.of("depths", [depth for depth, _, _ in levels]),
        "hidden_widths": settings.of("d_ffs", [down.shape[1] for _, down, _ in levels]),
        **_attentions(settings, levels),
        "mapping_width": settings.of("mapping_width", hidden),
        "mapping_depth": settings.of("mapping_depth", len({name.split(".")[0] for name in blocks})),
        "mapping_hidden": settings.of("mapping_d_ff", _inner(blocks, 3 * hidden)),
        "dropout": _rates(settings.of("dropout_rate", default=0.0), len(levels)),
        "mapping_dropout": settings.of("mapping_dropout_rate", default=0.0, kind=float),
        "augment_dim": AUGMENT_DIM,
    }
    if vector:
        network["conditions"] = {"vector": [vector]}
    shape = (channels, *settings.size([side * 2 ** (len(levels) - 1) for side in patch]))
    ours = empty_network(network, shape, num_classes).state_dict()
    names = transformer_names(ours, network)
    nothing = {name: torch.zeros(ours[name].shape) for name in ours if name not in names}
    state = translate(tensors, names, ours, computed=nothing)
    null = not num_classes or settings.of("cond_dropout_rate", default=0.1, kind=float) > 0
    return Told(network, shape, num_classes, state, bool(null and not vector))


def _levels(tensors: Mapping[str, Tensor]) -> list[tuple[int, Tensor, int]]:
    """Of each level, the finest first, how many layers it has, the last matrix of one, and its heads, 0 for none."""
    found, number = [], 0
    while numbered(tensors, f"down_levels.{number}."):
        found.append(f"down_levels.{number}.")
        number += 1
    levels = []
    for prefix in [*found, "mid_level."]:
        level = numbered(tensors, prefix)
        if "0.ff.down_proj.weight" not in level:
            raise ValueError(f"the weights do not fit the facts: the file lacks {prefix}0.ff.down_proj.weight")
        heads = level["0.self_attn.scale"].shape[0] if "0.self_attn.scale" in level else 0
        levels.append((len({name.split(".")[0] for name in level}), level["0.ff.down_proj.weight"], heads))
    return levels


def _inner(blocks: Mapping[str, Tensor], default: int) -> int:
    return blocks["0.down_proj.weight"].shape[1] if "0.down_proj.weight" in blocks else default


def _attentions(settings: Settings, levels: Sequence[tuple[int, Tensor, int]]) -> dict[str, Any]:
    """The attention of each level; without any in a config, neighborhoods of 7 but for the last level."""
    local, everywhere = {"type": "neighborhood"}, {"type": "global"}
    told = settings.of("self_attns", default=None) or [local] * (len(levels) - 1) + [everywhere]
    if len(told) != len(levels):
        raise ValueError(f"facts: self_attns has {len(told)} entries, but the file has {len(levels)} levels")
    attentions, head_widths, windows = [], [], []
    for number, (attention, (_, down, heads)) in enumerate(zip(told, levels, strict=True)):
        kind = attention.get("type") if isinstance(attention, Mapping) else attention
        if kind not in ATTENTIONS:
            raise ValueError(f"facts: self_attns has the type {kind!r}: k-diffusion has {', '.join(ATTENTIONS)}")
        if (kind == "none") != (heads == 0):
            there = "attention" if heads else "none"
            raise ValueError(f"facts: self_attns has the type {kind!r} at level {number}, but the file has {there}")
        size = ATTENTIONS[kind]
        if kind == "shifted-window" and size not in attention:
            raise ValueError(f"facts: self_attns needs window_size at level {number}, tokens a side of a window")
        attentions.append(kind.replace("-", "_"))
        width = down.shape[0]
        head_widths.append(attention.get("d_head", 64) if heads else width)
        windows.append(attention.get(size, 7) if size else 7)
        if heads and width != heads * head_widths[-1]:
            raise ValueError(
                f"facts: self_attns has d_head = {head_widths[-1]} at level {number}, but the file has "
                f"{width // heads}: {heads} heads of {width} features"
            )
    return {"attentions": attentions, "head_widths": head_widths, "windows": windows}


def _rates(rate: Any, count: int) -> list[float]:
    if isinstance(rate, Sequence):
        return [float(r) for r in rate]
    return [float(rate or 0.0)] * count
