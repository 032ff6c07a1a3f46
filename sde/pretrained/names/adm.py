"""The tensors of ADM as guided-diffusion and EDM name them."""

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor, nn

from sde.networks.adm import ADM
from sde.networks.adm_classifier import ADMClassifier
from sde.networks.attention import SelfAttention
from sde.networks.blocks import ResidualBlock, Stage
from sde.pretrained.names.theirs import Names, Theirs, layer

QKV_ORDERS: dict[str, tuple[int, int, int]] = {
    "qkv, heads, channels": (0, 1, 2),
    "heads, qkv, channels": (1, 0, 2),
    "heads, channels, qkv": (2, 0, 1),
}
"""Axes of q, k, v, of heads and of channels in the rows of a projection to all of them, by their order there."""


def qkv_rows(name: str, like: Tensor, heads: int, order: str) -> Theirs:
    """Rows of q, k and v in one of QKV_ORDERS as ours are: those of q, of k and of v, each by head. ``like`` is ours,
    whose axes of space may be more than theirs."""
    axes = QKV_ORDERS[order]
    sizes = (3, heads, like.shape[0] // (3 * heads))
    theirs_sizes = [sizes[axes.index(axis)] for axis in range(3)]
    inverse = [axes.index(axis) for axis in range(3)]
    columns = list(like.shape[1:2])

    def ours(x: Tensor) -> Tensor:
        return x.reshape(*theirs_sizes, *columns).permute(*axes, *range(3, 3 + len(columns))).reshape(like.shape)

    def back(x: Tensor) -> Tensor:
        return x.reshape(*sizes, *columns).permute(*inverse, *range(3, 3 + len(columns))).reshape(like.shape)

    return Theirs(name, ours, back)


def shaped(name: str, like: Tensor, theirs: tuple[int, ...]) -> Theirs:
    """The same numbers in another shape, as the weights of a 1x1 convolution and of a linear layer."""
    return Theirs(name, _only(theirs, lambda x: x.reshape(like.shape)), lambda x: x.reshape(theirs))


def _only(theirs: tuple[int, ...], ours: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``ours`` of tensors of this shape: a transposed one has as many numbers, and would go through as well."""

    def checked(x: Tensor) -> Tensor:
        if tuple(x.shape) != tuple(theirs):
            raise RuntimeError(f"shape {tuple(x.shape)}: needs {tuple(theirs)}")
        return ours(x)

    return checked


def attention(here: str, there: dict[str, str], module: SelfAttention, order: str, axes: int) -> Names:
    """The names of self-attention, whose projections have so many axes of space there."""
    found = layer(f"{here}.norm", there["norm"])
    for part in ("qkv", "out"):
        projection = getattr(module, part)
        for kind, value in projection.named_parameters():
            name = f"{there[part]}.{kind}"
            shape = (*value.shape[:2], *[1] * axes) if kind == "weight" else tuple(value.shape)
            found[f"{here}.{part}.{kind}"] = (
                _reshaped(qkv_rows(name, value, module.heads, order), shape)
                if part == "qkv"
                else shaped(name, value, shape)
            )
    return found


def _reshaped(rows: Theirs, theirs: tuple[int, ...]) -> Theirs:
    return Theirs(rows.name, _only(theirs, rows.ours), lambda x: rows.back(x).reshape(theirs))


def guided_diffusion_names(network: ADM | ADMClassifier, order: str) -> Names:
    """The tensors of guided-diffusion's UNetModel and EncoderUNetModel, whose rows of q, k and v have this order."""
    encoder = network.encoder
    found: Names = {
        **layer("encoder.embedding.mapping.layers.0", "time_embed.0"),
        **layer("encoder.embedding.mapping.layers.2", "time_embed.2"),
        "encoder.embedding.mapping.label.weight": Theirs("label_emb.weight"),
        **layer("encoder.stem", "input_blocks.0.0"),
    }
    for number, (here, module) in enumerate(_way_down(network), 1):
        found |= _guided(here, f"input_blocks.{number}", module, order, "op")
    for part, (stage, place) in enumerate(((encoder.middle[0], 0), (encoder.middle[1], 2))):
        here = f"encoder.middle.{part}"
        found |= _guided_block(f"{here}.block", f"middle_block.{place}")
        if isinstance(stage.attention, SelfAttention):
            found |= _guided_attention(f"{here}.attention", "middle_block.1", stage.attention, order)
    if isinstance(network, ADMClassifier):
        return found | _pool(network)
    for number, stages in enumerate(_way_up(network)):
        place = 0
        for here, module in stages:
            found |= _guided(here, f"output_blocks.{number}", module, order, "conv", place)
            place += 2 if isinstance(module, Stage) and module.attention is not None else 1
    return found | layer("norm", "out.0") | layer("head", "out.2")


def _way_down(network: ADM | ADMClassifier) -> Iterator[tuple[str, nn.Module]]:
    encoder = network.encoder
    for level, stages in enumerate(encoder.levels):
        for index, stage in enumerate(stages.children()):
            yield f"encoder.levels.{level}.{index}", stage
        if level < len(encoder.downs):
            yield f"encoder.downs.{level}", encoder.downs[level]


def _way_up(network: ADM) -> Iterator[list[tuple[str, nn.Module]]]:
    """Every stage, with what doubles the resolution after the last one of a level."""
    for level, (stages, up) in enumerate(zip(network.levels, network.ups, strict=True)):
        parts = list(stages.children())
        for index, stage in enumerate(parts):
            found = [(f"levels.{level}.{index}", stage)]
            yield [*found, (f"ups.{level}", up)] if index == len(parts) - 1 else found


def _guided(here: str, there: str, module: nn.Module, order: str, resample: str, place: int = 0) -> Names:
    if isinstance(module, ResidualBlock):
        return _guided_block(here, f"{there}.{place}")
    if not isinstance(module, Stage):
        return layer(here, f"{there}.{place}.{resample}")
    found = _guided_block(f"{here}.block", f"{there}.{place}")
    if isinstance(module.attention, SelfAttention):
        found |= _guided_attention(f"{here}.attention", f"{there}.{place + 1}", module.attention, order)
    return found


def _guided_block(here: str, there: str) -> Names:
    parts = {"norm1": "in_layers.0", "conv1": "in_layers.2", "modulation": "emb_layers.1", "norm2": "out_layers.0",
             "conv2": "out_layers.3", "skip": "skip_connection"}  # fmt: skip
    return {k: v for ours, theirs in parts.items() for k, v in layer(f"{here}.{ours}", f"{there}.{theirs}").items()}


def _guided_attention(here: str, there: str, module: SelfAttention, order: str) -> Names:
    parts = {"norm": f"{there}.norm", "qkv": f"{there}.qkv", "out": f"{there}.proj_out"}
    return attention(here, parts, module, order, axes=1)


def _pool(network: ADMClassifier) -> Names:
    if network.pool.startswith("spatial"):
        names = layer("head.0", "out.0") | layer("head.1", "out.1")
        last = len(network.head) - 1  # type: ignore[arg-type]
        return names | layer(f"head.{last}", f"out.{last}")
    found = layer("norm", "out.0")
    if network.pool == "adaptive":
        weight = cast(Tensor, network.head.weight)
        return found | {"head.weight": shaped("out.3.weight", weight, (*weight.shape, 1, 1)),
                        "head.bias": Theirs("out.3.bias")}  # fmt: skip
    found["head.positions"] = Theirs("out.2.positional_embedding")
    for ours, theirs in (("qkv", "qkv_proj"), ("out", "c_proj")):
        weight = cast(Tensor, getattr(network.head, ours).weight)
        found[f"head.{ours}.weight"] = shaped(f"out.2.{theirs}.weight", weight, (*weight.shape, 1))
        found[f"head.{ours}.bias"] = Theirs(f"out.2.{theirs}.bias")
    return found


def dhariwal_names(network: ADM, resolution: int) -> Names:
    """The tensors of EDM's DhariwalUNet for images of this resolution, without the prefix of its preconditioning."""
    encoder, last = network.encoder, len(network.levels) - 1
    found: Names = {
        **layer("encoder.embedding.mapping.layers.0", "map_layer0"),
        **layer("encoder.embedding.mapping.layers.2", "map_layer1"),
        "encoder.embedding.mapping.label.weight": Theirs("map_label.weight", torch.t, torch.t),
        "encoder.embedding.mapping.augment.weight": Theirs("map_augment.weight"),
        **layer("encoder.stem", f"enc.{resolution}x{resolution}_conv"),
        **layer("norm", "out_norm"),
        **layer("head", "out_conv"),
    }
    sizes = [f"{resolution >> level}x{resolution >> level}" for level in range(last + 1)]
    for level, size in enumerate(sizes):
        for index, stage in enumerate(encoder.levels[level].children()):
            found |= _dhariwal(f"encoder.levels.{level}.{index}", f"enc.{size}_block{index}", stage)
        if level:
            found |= _dhariwal(f"encoder.downs.{level - 1}", f"enc.{size}_down", encoder.downs[level - 1])
            found |= _dhariwal(f"ups.{last - level}", f"dec.{sizes[level - 1]}_up", network.ups[last - level])
        for index, stage in enumerate(network.levels[last - level].children()):
            found |= _dhariwal(f"levels.{last - level}.{index}", f"dec.{size}_block{index}", stage)
    for index, stage in enumerate(encoder.middle):
        found |= _dhariwal(f"encoder.middle.{index}", f"dec.{sizes[-1]}_in{index}", stage)
    return found


def _dhariwal(here: str, there: str, module: nn.Module) -> Names:
    block = f"{here}.block" if isinstance(module, Stage) else here
    parts = {"norm1": "norm0", "conv1": "conv0", "modulation": "affine", "norm2": "norm1", "conv2": "conv1",
             "skip": "skip"}  # fmt: skip
    found = {k: v for our, their in parts.items() for k, v in layer(f"{block}.{our}", f"{there}.{their}").items()}
    if isinstance(module, Stage) and isinstance(module.attention, SelfAttention):
        names = {"norm": f"{there}.norm2", "qkv": f"{there}.qkv", "out": f"{there}.proj"}
        found |= attention(f"{here}.attention", names, module.attention, "heads, channels, qkv", axes=2)
    return found
