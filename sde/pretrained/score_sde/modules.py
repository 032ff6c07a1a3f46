"""The architecture of score_sde's networks, read off the names and shapes of their tensors."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sde.pretrained.names.theirs import numbered

PREFIX = "all_modules."


@dataclass(frozen=True)
class Part:
    """One of the network's list of modules. ``kind`` is fourier, linear, norm, conv, block, attention, resample (a
    convolution that halves or doubles), join (one of width 1) or, where it has no tensors, empty; ``inputs`` and
    ``outputs`` are its channels, and ``shapes`` those of its tensors."""

    kind: str
    inputs: int = 0
    outputs: int = 0
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def projects(self) -> bool:
        """Whether a BigGAN block has a convolution on its skip."""
        return "Conv_2.weight" in self.shapes


def parts_of(tensors: Mapping[str, Tensor]) -> list[Part]:
    """The network's modules in order."""
    numbers = [int(found[1]) for name in tensors if (found := re.match(r"all_modules\.(\d+)\.", name))]
    count = max(numbers, default=-1) + 1
    return [_part({k: tuple(v.shape) for k, v in numbered(tensors, f"{PREFIX}{i}.").items()}) for i in range(count)]


def _part(shapes: dict[str, tuple[int, ...]]) -> Part:
    weight = shapes.get("weight", ())
    if not shapes:
        return Part("empty")
    if "NIN_3.W" in shapes:
        return Part("attention", shapes["NIN_3.W"][0], shapes["NIN_3.W"][1], shapes)
    if "Conv_1.weight" in shapes:
        return Part("block", shapes["Conv_0.weight"][1], shapes["Conv_0.weight"][0], shapes)
    for name in ("Conv2d_0.weight", "Conv_0.weight"):
        if name in shapes:
            return Part("join" if shapes[name][-1] == 1 else "resample", shapes[name][1], shapes[name][0], shapes)
    kinds = {1: "norm", 2: "linear", 4: "conv"}
    if len(weight) in kinds:
        return Part(kinds[len(weight)], weight[min(1, len(weight) - 1)], weight[0], shapes)
    return Part("fourier" if "W" in shapes else "unknown", shapes=shapes)


def architecture(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the tensors say of a network, by score_sde's names of options, ``fir`` only where they do; ``levels`` is the
    number of levels, and ``attended`` whether each has attention. Raises ValueError for a network of another kind."""
    parts = parts_of(tensors)
    try:
        return _architecture(parts)
    except (IndexError, ValueError, ZeroDivisionError):
        raise ValueError(
            "its tensors are of neither `ddpm` nor `ncsnpp`: of score_sde's networks these are read"
        ) from None


def _architecture(parts: list[Part]) -> dict[str, Any]:
    fourier = parts[0].kind == "fourier"
    start = 1 if fourier else 0
    first, second, stem, *rest = parts[start:]
    if (first.kind, second.kind, stem.kind) != ("linear", "linear", "conv") or not rest:
        raise ValueError
    blocks = [part for part in rest if part.kind == "block"]
    biggan = any(part.projects and part.inputs == part.outputs for part in blocks)
    found: dict[str, Any] = {
        "embedding_type": "fourier" if fourier else "positional",
        "nf": stem.outputs,
        "num_channels": stem.inputs,
        "resblock_type": "biggan" if biggan or any(part.projects for part in blocks) else "ddpm",
        "conditional": "Dense_0.weight" in blocks[0].shapes,
        "num_res_blocks": _blocks_per_level(rest, len(blocks)),
    }
    rest = _way_down(rest, found)
    _way_up(rest, found)
    resamples = [part for part in parts if part.kind == "resample"]
    if resamples:
        found["fir"] = "Conv2d_0.weight" in resamples[0].shapes
    return found


def _is_down(part: Part) -> bool:
    """Whether a module ends a level on the way down."""
    return part.kind in ("resample", "empty") or (
        part.kind == "block" and part.projects and part.inputs == part.outputs
    )


def _blocks_per_level(rest: list[Part], blocks: int) -> int:
    count = 0
    for part in rest:
        if _is_down(part):
            return count
        count += part.kind == "block"
    # A single level: as many on the way down, one more on the way up, and two in the middle.
    return (blocks - 3) // 2


def _way_down(rest: list[Part], found: dict[str, Any]) -> list[Part]:
    """Adds what the way down tells; returns the modules behind the middle."""
    count, biggan = found["num_res_blocks"], found["resblock_type"] == "biggan"
    multipliers, attended = [], []
    found |= {"progressive_input": "none", "resamp_with_conv": True}
    while True:
        for _ in range(count):
            block, rest = rest[0], rest[1:]
            has_attention = rest[0].kind == "attention"
            rest = rest[1:] if has_attention else rest
        multipliers.append(block.outputs // found["nf"])
        attended.append(has_attention)
        if not _is_down(rest[0]):
            break
        down, rest = rest[0], rest[1:]
        if not biggan:
            found["resamp_with_conv"] = down.kind == "resample"
        if rest[0].kind == "join":
            found["progressive_input"] = "input_skip"
            found["progressive_combine"] = "cat" if rest[1].inputs == 2 * rest[0].outputs else "sum"
            rest = rest[1:]
        elif rest[0].kind == "resample":
            found["progressive_input"] = "residual"
            rest = rest[1:]
    if [part.kind for part in rest[:3]] != ["block", "attention", "block"]:
        raise ValueError
    found |= {"ch_mult": multipliers, "attended": attended, "levels": len(multipliers)}
    return rest[3:]


def _way_up(rest: list[Part], found: dict[str, Any]) -> None:
    """Adds what the way up tells: what stands behind the blocks of the coarsest level."""
    rest = rest[found["num_res_blocks"] + 1 :]
    rest = rest[1:] if rest[0].kind == "attention" else rest
    # With one level alone a skip output is none, and a residual one has a norm and a convolution more than none.
    if rest[0].kind != "norm" or (found["levels"] == 1 and len(rest) == 2):
        found["progressive"] = "none"
    elif found["levels"] == 1 or rest[1].outputs != found["num_channels"]:
        found["progressive"] = "residual"
    else:
        found["progressive"] = "output_skip"
