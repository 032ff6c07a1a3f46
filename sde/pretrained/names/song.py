"""The tensors of our NCSN++ as score_sde and EDM name them."""

import math
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from sde.networks.blocks import ResidualBlock, Stage
from sde.networks.ncsnpp import NCSNpp
from sde.networks.ncsnpp_levels import Level, levels_of
from sde.networks.progressive import Head, ResidualInput, ResidualOutput, SkipInput, SkipOutput
from sde.networks.resample import ConvolutionDown, ConvolutionUp
from sde.pretrained.names.theirs import Names, Theirs, layer


def path(network: NCSNpp) -> Iterator[tuple[str, nn.Module]]:
    """The modules with weights behind the embedding by their names, in the order in which x goes through them."""
    yield "stem", network.stem
    for number, level in enumerate(levels_of(network.down)):
        yield from _parts(f"down.{number}", level)
    for number, stage in enumerate(network.middle):
        yield from _stage(f"middle.{number}", stage)
    for number, level in enumerate(levels_of(network.up)):
        yield from _parts(f"up.{number}", level)
    if network.head is not None:
        yield "head", network.head


def _parts(name: str, level: Level) -> Iterator[tuple[str, nn.Module]]:
    pyramid = [(f"{name}.pyramid", level.pyramid)] if level.pyramid is not None else []
    if level.resample is not None:
        yield f"{name}.resample", level.resample
    if name.startswith("down"):
        yield from pyramid
    for number, stage in enumerate(level.stages):
        yield from _stage(f"{name}.stages.{number}", stage)
    if name.startswith("up"):
        yield from pyramid


def _stage(name: str, stage: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    stage = cast(Stage, stage)
    yield f"{name}.block", stage.block
    if stage.attention is not None:
        yield f"{name}.attention", stage.attention


# score_sde: a list of modules in the order of ``path``, and 1x1 convolutions as matrices of inputs x outputs.


def score_sde_names(network: nn.Module) -> Names:
    """The tensors of score_sde's models ``ddpm`` and ``ncsnpp``, images alone, without DataParallel's prefix."""
    network = cast(NCSNpp, network)
    options, place = network.options, 0
    found: Names = {}
    if options.embedding_type == "fourier":
        found["embedding.mapping.frequencies"] = Theirs("all_modules.0.W")
        place = 1
    for number in (0, 2):
        found |= layer(f"embedding.mapping.layers.{number}", f"all_modules.{place}")
        place += 1
    for here, module in path(network):
        there = f"all_modules.{place}"
        place += 1
        if isinstance(module, ResidualBlock):
            found |= _song_block(here, there, module, options.resample_blocks)
        elif isinstance(module, ConvolutionDown | ConvolutionUp):
            found |= layer(f"{here}.conv", f"{there}.{'Conv2d_0' if options.taps else 'Conv_0'}")
        elif isinstance(module, SkipInput):
            found |= layer(f"{here}.conv", f"{there}.Conv_0")
        elif isinstance(module, ResidualInput):
            found |= layer(f"{here}.down.conv", f"{there}.{'Conv2d_0' if options.taps else 'Conv_0'}")
        elif isinstance(module, ResidualOutput) and module.up is not None:
            found |= layer(f"{here}.up.conv", f"{there}.{'Conv2d_0' if options.taps else 'Conv_0'}")
        elif isinstance(module, Head | SkipOutput | ResidualOutput):
            inner = here if isinstance(module, Head) else f"{here}.head"
            found |= layer(f"{inner}.norm", there) | layer(f"{inner}.conv", f"all_modules.{place}")
            place += 1
        elif isinstance(module, nn.Conv2d):
            found |= layer(here, there)
        elif hasattr(module, "qkv"):
            found |= _song_attention(here, there)
    return found


def _song_block(here: str, there: str, block: ResidualBlock, biggan: bool) -> Names:
    pairs = {"norm1": "GroupNorm_0", "conv1": "Conv_0", "modulation": "Dense_0", "norm2": "GroupNorm_1"}
    found: Names = {}
    for ours, theirs in (pairs | {"conv2": "Conv_1"}).items():
        found |= layer(f"{here}.{ours}", f"{there}.{theirs}")
    if isinstance(block.skip, nn.Conv2d):
        found |= layer(f"{here}.skip", f"{there}.Conv_2") if biggan else matrix(f"{here}.skip", f"{there}.NIN_0")
    return found


def matrix(here: str, there: str) -> Names:
    """A convolution of width 1 that is a matrix W (inputs, outputs) and a bias b."""
    return {
        f"{here}.weight": Theirs(f"{there}.W", lambda w: w.t()[..., None, None], lambda w: w[..., 0, 0].t()),
        f"{here}.bias": Theirs(f"{there}.b"),
    }


def _song_attention(here: str, there: str) -> Names:
    parts = tuple(f"{there}.NIN_{part}" for part in range(3))
    return {
        **layer(f"{here}.norm", f"{there}.GroupNorm_0"),
        f"{here}.qkv.weight": Theirs(
            tuple(f"{part}.W" for part in parts),
            lambda *ws: torch.cat([w.t() for w in ws])[..., None, None],
            lambda w: tuple(part.t() for part in w[..., 0, 0].chunk(3)),
        ),
        f"{here}.qkv.bias": Theirs(
            tuple(f"{part}.b" for part in parts), lambda *bs: torch.cat(bs), lambda b: tuple(b.chunk(3))
        ),
        **matrix(f"{here}.out", f"{there}.NIN_3"),
    }


# EDM: modules by resolution, and rows of q, k and v by channel.


def song_unet_names(network: nn.Module, resolution: int) -> Names:
    """The tensors of EDM's SongUNet for images of this resolution, without the preconditioning's prefix."""
    network = cast(NCSNpp, network)
    found: Names = {}
    if network.options.embedding_type == "fourier":
        found["embedding.mapping.frequencies"] = Theirs(
            "map_noise.freqs", lambda f: 2 * math.pi * f, lambda f: f / (2 * math.pi)
        )
    found |= layer("embedding.mapping.label", "map_label") | layer("embedding.mapping.augment", "map_augment", False)
    for ours, theirs in ((0, "map_layer0"), (2, "map_layer1")):
        found |= layer(f"embedding.mapping.layers.{ours}", theirs)
    last = len(network.down) - 1
    for here, module in path(network):
        kind, *rest = here.split(".")
        level = {"down": lambda r: int(r[0]), "up": lambda r: last - int(r[0]), "middle": lambda r: last}.get(kind)
        size = resolution >> (level(rest) if level else 0)
        side = "enc" if kind in ("stem", "down") else "dec"
        found |= _edm_part(here, f"{side}.{size}x{size}", module)
    return found


def _edm_part(here: str, there: str, module: nn.Module) -> Names:
    """The names of one module of ``path`` at its resolution."""
    kind, *rest = here.split(".")
    if kind == "stem":
        return layer(here, f"{there}_conv")
    if isinstance(module, ResidualInput):
        return layer(f"{here}.down.conv", f"{there}_aux_residual")
    if isinstance(module, SkipInput):
        return layer(f"{here}.conv", f"{there}_aux_skip")
    if isinstance(module, Head | SkipOutput):
        inner = here if isinstance(module, Head) else f"{here}.head"
        return layer(f"{inner}.norm", f"{there}_aux_norm") | layer(f"{inner}.conv", f"{there}_aux_conv")
    if kind == "middle":
        block = f"{there}_in{rest[0]}"
    elif rest[1] == "resample":
        block = f"{there}_{kind}"
    else:
        block = f"{there}_block{rest[2]}"
    if isinstance(module, ResidualBlock):
        return _edm_block(here, block, module)
    return {
        **layer(f"{here}.norm", f"{block}.norm2"),
        **{f"{here}.qkv.{kind}": Theirs(f"{block}.qkv.{kind}", by_channel, by_kind) for kind in ("weight", "bias")},
        **layer(f"{here}.out", f"{block}.proj"),
    }


def _edm_block(here: str, there: str, block: ResidualBlock) -> Names:
    pairs = {"norm1": "norm0", "conv1": "conv0", "modulation": "affine", "norm2": "norm1", "conv2": "conv1"}
    if isinstance(block.skip, nn.Conv2d):
        pairs["skip"] = "skip"
    return {
        name: value
        for ours, theirs in pairs.items()
        for name, value in layer(f"{here}.{ours}", f"{there}.{theirs}").items()
    }


def by_channel(rows: Tensor) -> Tensor:
    """Rows q, k, v of the first channel, then of the next, as all rows of q, of k and of v."""
    return rows.unflatten(0, (-1, 3)).transpose(0, 1).flatten(0, 1)


def by_kind(rows: Tensor) -> Tensor:
    """The inverse of ``by_channel``."""
    return rows.unflatten(0, (3, -1)).transpose(0, 1).flatten(0, 1)
