"""What facts and keys say together of the networks of guided-diffusion, and where they contradict."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sde.pretrained.facts import MISSING, Facts
from sde.pretrained.guided_diffusion.keys import Architecture, architectures
from sde.pretrained.schedules import told_flag


def fitting(tensors: Mapping[str, Tensor], facts: Facts) -> list[Architecture]:
    """The architectures that keys, shapes and facts leave. Raises ValueError where there is none."""
    found = architectures(tensors)
    if not found:
        raise ValueError("the file has keys of guided-diffusion, but its blocks make no levels of its networks")
    for names in (("num_res_blocks", "classifier_depth"), ("channel_mult",)):
        told = _told(facts, names)
        fits = [f for f in found if told is MISSING or told == getattr(f, names[0])]
        if len(found) > 1 and fits:
            found = fits
    positions = tensors.get("out.2.positional_embedding")
    told = facts.told("image_size", int)
    if len(found) > 1 and positions is not None and told is not MISSING:
        found = [f for f in found if _side(positions) * f.factor == told] or found
    return found


def _side(positions: Tensor) -> int:
    return math.isqrt(positions.shape[1] - 1)


def size_of(tensors: Mapping[str, Tensor], shape: Architecture) -> Any:
    """The size of images, where an attention pool tells it."""
    positions = tensors.get("out.2.positional_embedding")
    return MISSING if positions is None else _side(positions) * shape.factor


def check_agreement(shape: Architecture, size: int, facts: Facts) -> None:
    """Raise ValueError where facts contradict what keys and shapes say."""
    classifier = shape.pool is not None
    found: dict[tuple[str, ...], Any] = {
        ("in_channels",): shape.inputs,
        ("model_channels", "classifier_width" if classifier else "num_channels"): shape.base,
        ("out_channels",): shape.outputs,
        ("num_res_blocks", *(["classifier_depth"] if classifier else [])): shape.num_res_blocks,
        ("channel_mult",): shape.channel_mult,
        ("dims",): 2,
        ("use_scale_shift_norm", *(["classifier_use_scale_shift_norm"] if classifier else [])): shape.adaptive,
        ("pool", "classifier_pool"): shape.pool,
    }
    if len(shape.channels) > 1:
        names = ("resblock_updown", *(["classifier_resblock_updown"] if classifier else []))
        found[names] = shape.resampled == "block"
    if shape.resampled != "block":
        found["conv_resample",] = shape.resampled == "conv"
    if not classifier:
        found |= {("num_classes",): shape.num_classes, ("class_cond",): shape.num_classes is not None}
        found["learn_sigma",] = learned = shape.outputs == 2 * shape.inputs
        if told_flag(facts, "learn_sigma") and not learned:
            raise ValueError(
                f"facts: learn_sigma is told, but the network takes {shape.inputs} channels and returns {shape.outputs}"
            )
    for names, value in found.items():
        for name in names:
            told = _told(facts, (name,))
            if told is not MISSING and (name != "pool" or classifier) and told != value:
                facts.settle(name, value)
    name = "classifier_attention_resolutions" if classifier else "attention_resolutions"
    for key in {name, "attention_resolutions"}:
        told = facts.told(key)
        if told is MISSING:
            continue
        # A text of the scripts has sizes, a sequence of the networks by how much they are smaller.
        factors = [size // int(part) for part in told.split(",")] if isinstance(told, str) else list(told)
        attended = [2**level for level, there in enumerate(shape.attended) if there]
        if {f for f in factors if f in [2**level for level in range(len(shape.channels))]} != {*attended}:
            facts.settle(key, ",".join(str(size // f) for f in attended) if isinstance(told, str) else tuple(attended))


def _told(facts: Facts, names: tuple[str, ...]) -> Any:
    """What is told by one of these names, in the form of an architecture; a channel_mult of the scripts that is left
    empty is not told."""
    for name in names:
        told = facts.told(name)
        if name == "channel_mult" and isinstance(told, str):
            told = tuple(float(part) for part in told.split(",")) if told else MISSING
        if told is not MISSING:
            return tuple(told) if isinstance(told, list) else told
    return MISSING
