"""What a file of k-diffusion's image_v1 tells of the U-Net with a mapping network."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sde.pretrained.facts import of_kind
from sde.pretrained.foreign import empty_network
from sde.pretrained.k_diffusion.names import AUGMENT_DIM, unet_names
from sde.pretrained.k_diffusion.settings import Settings, Told
from sde.pretrained.names.theirs import numbered, translate


def read_unet(tensors: Mapping[str, Tensor], settings: Settings) -> Told:
    """Levels, attention, conditions and skipped levels are told by names and shapes; the images and patches by the
    config or the facts."""
    wrapped = any(name.startswith("inner_model.") for name in tensors)
    wrapped = settings.of("augment_wrapper", wrapped)
    inner = numbered(tensors, "inner_model.") if wrapped else dict(tensors)
    levels = _levels(inner)
    channels, patch = settings.of("input_channels", kind=int), settings.of("patch_size", default=1)
    patch = of_kind("patch_size", patch[0] if isinstance(patch, list | tuple) and len(patch) else patch, int)
    for name in ("proj_in.weight", "proj_out.weight"):
        if name not in inner:
            raise ValueError(f"the weights do not fit the facts: the file lacks {name}")
    extra = inner["proj_out.weight"].shape[0] - channels * patch**2
    has_variance = settings.of("has_variance", extra == 1)
    image = settings.of("unet_cond_dim", inner["proj_in.weight"].shape[1] // patch**2 - channels)
    mapped = inner["mapping_cond.weight"].shape[1] if "mapping_cond.weight" in inner else 0
    vector = settings.of("mapping_cond_dim", mapped - AUGMENT_DIM * wrapped)
    features = next((value.shape[0] for name, value in inner.items() if name.endswith("norm_enc.weight")), 0)
    features = settings.of("cross_cond_dim", features)
    skipped = settings.of("skip_stages", _skipped(inner, len(levels)))
    widths = settings.of("channels", [width for _, width, _, _ in levels])
    depths = settings.of("depths", [depth for depth, _, _, _ in levels])
    attended = settings.of("self_attn_depths", [own for _, _, own, _ in levels])
    if features:
        settings.of("cross_attn_depths", [cross for _, _, _, cross in levels])
    network: dict[str, Any] = {
        "name": "mapped_unet",
        "patch_size": patch,
        "widths": widths[skipped:],
        "depths": depths[skipped:],
        "attended_levels": [number for number, own in enumerate(attended[skipped:]) if own],
        "crossed_levels": [number for number, level in enumerate(levels[skipped:]) if level[3]],
        "mapping_width": settings.of("mapping_out", 2 * inner["timestep_embed.weight"].shape[0]),
        "dropout": settings.of("dropout_rate", default=0.0, kind=float),
        "augment_dim": AUGMENT_DIM if wrapped else 0,
        "stem_width": widths[max(0, skipped - 1)],
        "log_variance": has_variance,
    }
    size = settings.size(patch * 2 ** (len(levels) - skipped - 1))
    conditions = {"vector": [vector]} if vector else {}
    conditions |= {"image": [image, *size]} if image else {}
    # Sequences have any length; whose tokens come in another number gives as many.
    conditions |= {"sequence": [1, features]} if network["crossed_levels"] else {}
    if conditions:
        network["conditions"] = conditions
    shape = (channels, *size)
    ours = empty_network(network, shape, None).state_dict()
    names = unet_names(ours, network, skipped)
    ignored = _of_skipped(tensors, skipped, len(levels))
    nothing = {name: torch.zeros(ours[name].shape) for name in ours if name not in names}
    state = translate(tensors, names, ours, ignored, nothing)
    settings.of("num_classes", 0)
    return Told(network, shape, None, state, not conditions)


def _levels(inner: Mapping[str, Tensor]) -> list[tuple[int, int, bool, bool]]:
    """Of each level, the finest first: residual blocks, channels, whether it has self- and cross-attention."""
    levels: list[tuple[int, int, bool, bool]] = []
    while level := numbered(inner, f"u_net.d_blocks.{len(levels)}."):
        blocks = {name.split(".")[0] for name in level if ".main." in name}
        if "1.main.2.weight" not in level:
            raise ValueError(f"the weights do not fit the facts: u_net.d_blocks.{len(levels)} has no 1.main.2.weight")
        own, cross = (any(part in name for name in level) for part in (".qkv_proj.", ".q_proj."))
        levels.append((len(blocks), level["1.main.2.weight"].shape[0], own, cross))
    return levels


def _skipped(inner: Mapping[str, Tensor], count: int) -> int:
    """How many levels are skipped: the first one that halves is behind the first one in use."""
    halving = (level for level in range(count) if f"u_net.d_blocks.{level}.0.kernel" in inner)
    return next(halving, count) - 1


def _of_skipped(tensors: Mapping[str, Tensor], skipped: int, count: int) -> frozenset[str]:
    """Tensors of skipped levels, which no output depends on."""
    unused = [f"d_blocks.{level}." for level in range(skipped)]
    unused += [f"u_blocks.{count - 1 - level}." for level in range(skipped)]
    pattern = re.compile(r"(?:inner_model\.)?u_net\." + f"(?:{'|'.join(map(re.escape, unused))})")
    return frozenset(name for name in tensors if unused and pattern.match(name))
