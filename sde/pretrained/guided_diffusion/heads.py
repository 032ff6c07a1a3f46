"""The heads of attention of guided-diffusion's networks, which their keys and shapes do not say."""

from collections.abc import Mapping
from typing import Any

from sde.pretrained.facts import MISSING, Facts
from sde.pretrained.guided_diffusion.keys import Architecture
from sde.pretrained.guided_diffusion.options import WHOLE


def _default(facts: Facts, name: str) -> Any:
    """What the code has for an option where all others are told; else MISSING."""
    return next((defaults.get(name, MISSING) for names, defaults in WHOLE.items() if all_told(facts, names)), MISSING)


def all_told(facts: Facts, names: tuple[str, ...]) -> bool:
    """Whether all these options are told."""
    return all(facts.told(name) is not MISSING for name in names)


def _told_heads(facts: Facts) -> tuple[Any, Any]:
    """Channels per head, -1 or MISSING for none, and heads, or MISSING, as told or by default."""
    width, heads = facts.get("num_head_channels", -1), facts.told("num_heads", int)
    if width == -1 and heads is MISSING:
        return _default(facts, "num_head_channels"), _default(facts, "num_heads")
    return width, heads


def heads_missing(shape: Architecture, facts: Facts) -> bool:
    """Whether neither the number of heads nor their channels are told."""
    width, heads = _told_heads(facts)
    return width in (-1, MISSING) and (heads is MISSING or shape.pool == "attention")


def heads_of(shape: Architecture, facts: Facts) -> dict[str, int]:
    """Options of the heads of attention, whose number or channels are told."""
    width, heads = _told_heads(facts)
    if width not in (-1, MISSING):
        wrong = [c for c in (shape.channels[-1], *_attended(shape)) if c % width]
        if wrong:
            raise ValueError(f"facts: num_head_channels = {width} does not divide {wrong[0]} channels of the file")
        return {"head_channels": int(width)}
    up = facts.get("num_heads_upsample", -1)
    return {"num_heads": int(heads)} | ({} if up == -1 or shape.pool else {"num_heads_upsample": int(up)})


def _attended(shape: Architecture) -> list[int]:
    return [channels for channels, there in zip(shape.channels, shape.attended, strict=True) if there]


def is_single(shape: Architecture, heads: Mapping[str, Any]) -> bool:
    """Whether there is one head everywhere, by options of the heads."""
    channels = {shape.channels[-1], *_attended(shape)}
    return max(heads.get("num_heads", 0), heads.get("num_heads_upsample", 0)) == 1 or channels == {
        heads.get("head_channels")
    }


def order_of(shape: Architecture, network: Mapping[str, Any], facts: Facts) -> str:
    """The order of q, k and v, which shows where there are several heads."""
    if is_single(shape, network) or any(all_told(facts, names) for names in WHOLE):
        new = facts.get("use_new_attention_order", False)
    else:
        new = facts.settle("use_new_attention_order", kind=bool)
    return "qkv, heads, channels" if new else "heads, qkv, channels"
