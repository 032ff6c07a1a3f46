"""Names of k-diffusion's two image models by ours, each a function of our network's options."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from sde.pretrained.names.theirs import Theirs

AUGMENT_DIM = 9
"""Labels that say how an image was augmented."""

TURNS = (lambda w: 2 * math.pi * w, lambda frequencies: frequencies / (2 * math.pi))
"""Fourier features are of 2 pi w x there, with w in the file, and of what is here called frequencies times x."""

TRANSFORMER = {
    r"stem\.layer": "patch_in.proj",
    r"head\.layer": "patch_out.proj",
    r"norm": "out_norm",
    r"embedding\.noise\.1": "time_in_proj",
    r"embedding\.augment\.1": "aug_in_proj",
    r"embedding\.vector\.layer": "mapping_cond_in_proj",
    r"merges\.(\d+)\.layer": r"merges.\1.proj",
    r"splits\.(\d+)\.split\.layer": r"splits.\1.proj",
    r"embedding\.mapping\.(\d+)\.norm": r"mapping.blocks.\1.norm",
    r"embedding\.mapping\.(\d+)\.layers\.(up|down)": r"mapping.blocks.\1.\2_proj",
    r"(.+)\.attention_norm\.modulation": r"\1.self_attn.norm.linear",
    r"(.+)\.attention\.(qkv|out)": r"\1.self_attn.\2_proj",
    r"(.+)\.attention": r"\1.self_attn",
    r"(.+)\.attention\.rotary": r"\1.self_attn.pos_emb",
    r"(.+)\.norm\.modulation": r"\1.ff.norm.linear",
    r"(.+)\.layers\.(up|down)": r"\1.ff.\2_proj",
}
"""Modules of HDiT and what image_transformer_v2 calls them, the first pattern that fits."""

LEVELS = {r"down\.": "down_levels.", r"up\.": "up_levels.", r"middle\.": "mid_level."}

UNET = {
    "norm1.modulation": "main.0.mapper",
    "conv1": "main.2",
    "norm2.modulation": "main.4.mapper",
    "conv2": "main.6",
    "skip": "skip",
}
"""Modules of a residual block of MappedUNet, and what image_v1 calls them."""

ATTENTION = {"norm.modulation": "norm_in.mapper", "qkv": "qkv_proj", "out": "out_proj"}
CROSS = {
    "norm.modulation": "norm_dec.mapper",
    "context_norm": "norm_enc",
    "attention.q": "q_proj",
    "attention.kv": "kv_proj",
    "attention.out": "out_proj",
}


def without_null(ours: Iterable[str]) -> list[str]:
    """Our names but for those of the embeddings of null conditions, which k-diffusion has not."""
    return [name for name in ours if not name.endswith(".null")]


def transformer_names(ours: Iterable[str], options: Mapping[str, Any]) -> dict[str, Theirs]:
    """Names of ``image_transformer_v2`` by those of HDiT with these options."""
    last = f"embedding.mapping.{options['mapping_depth'] + 1}.scale"
    special = {
        "embedding.noise.0.frequencies": Theirs("time_emb.weight", *TURNS),
        "embedding.augment.0.frequencies": Theirs("aug_emb.weight", *TURNS),
        # The null class is the last one there, and the first one here.
        "embedding.label.table.weight": Theirs(
            "class_emb.weight", lambda table: table.roll(1, 0), lambda table: table.roll(-1, 0)
        ),
        "embedding.mapping.0.scale": Theirs("mapping.in_norm.scale"),
        last: Theirs("mapping.out_norm.scale"),
    }
    return {name: special.get(name) or Theirs(_transformer_name(name)) for name in without_null(ours)}


def _transformer_name(name: str) -> str:
    module, _, leaf = name.rpartition(".")
    leaf = {"share": "fac", "frequencies": "freqs"}.get(leaf, leaf)
    for pattern, there in TRANSFORMER.items():
        if re.fullmatch(pattern, module):
            module = re.sub(pattern, there, module)
            break
    for pattern, there in LEVELS.items():
        module = re.sub(f"^{pattern}", there, module)
    # Blocks are numbered from 0 there; here the norm in front of them is the first.
    module = re.sub(r"^mapping\.blocks\.(\d+)", lambda at: f"mapping.blocks.{int(at[1]) - 1}", module)
    return f"{module}.{leaf}"


def unet_names(ours: Iterable[str], options: Mapping[str, Any], skipped: int = 0) -> dict[str, Theirs]:
    """Names of ``image_v1`` by those of MappedUNet with these options, whose levels are those of a file from level
    ``skipped`` on."""
    prefix = "inner_model." if options["augment_dim"] else ""
    count, strides = len(options["widths"]), _strides(options)
    first = options["augment_dim"]
    there: tuple[Any, ...]
    special: dict[str, tuple[Any, ...]] = {
        "embedding.noise.frequencies": ("timestep_embed.weight", *TURNS),
        "embedding.augment.weight": ("mapping_cond.weight", lambda weight: weight[:, :first]),
        "embedding.vector.layer.weight": ("mapping_cond.weight", lambda weight: weight[:, first:]),
    }
    names = {}
    for name in without_null(ours):
        module, _, leaf = name.rpartition(".")
        resampling = re.fullmatch(r"(halves|doubles)\.(\d+)", module)
        found = re.fullmatch(r"(down|up)\.(\d+)\.(\d+)\.(block|attention|cross)\.(.+)", module)
        if name in special:
            there = special[name]
        elif resampling:
            way, level = resampling[1], int(resampling[2]) + 1
            last = strides[level] * options["depths"][level]
            block = f"d_blocks.{skipped + level}.0" if way == "halves" else f"u_blocks.{count - 1 - level}.{last}"
            there = f"u_net.{block}.kernel", lambda kernel: kernel[None], lambda kernel: kernel[0]
        elif found:
            way, level, number, part, rest = found[1], int(found[2]), int(found[3]), found[4], found[5]
            # What halves comes first on the way down, what doubles last on the way up, whose levels are in its order.
            at = number * strides[level] + (way == "down") + _place(part, level, options)
            block = f"d_blocks.{skipped + level}" if way == "down" else f"u_blocks.{count - 1 - level}"
            table = {"block": UNET, "attention": ATTENTION, "cross": CROSS}[part]
            there = f"u_net.{block}.{at}.{table[rest]}.{leaf}", *_pointwise(part, rest, leaf)
        else:
            module = {"stem": "proj_in", "head": "proj_out"}.get(module, module.replace("embedding.mapping", "mapping"))
            there = (f"{module}.{leaf}",)
        names[name] = Theirs(prefix + there[0], *there[1:])
    return names


def _strides(options: Mapping[str, Any]) -> list[int]:
    """How many modules a stage of each level has."""
    parts = (options["attended_levels"], options["crossed_levels"])
    return [1 + sum(level in levels for levels in parts) for level in range(len(options["widths"]))]


def _place(part: str, level: int, options: Mapping[str, Any]) -> int:
    """Which of the modules of a stage it is."""
    return {"block": 0, "attention": 1, "cross": 1 + (level in options["attended_levels"])}[part]


def _pointwise(part: str, rest: str, leaf: str) -> tuple:
    """Queries and outputs of attention to tokens are convolutions of one position there."""
    if part != "cross" or rest not in ("attention.q", "attention.out") or leaf != "weight":
        return ()
    return (lambda weight: weight.flatten(1), lambda weight: weight[:, :, None, None])
