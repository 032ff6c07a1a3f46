"""Tied weights: names of a state dict that stand for one tensor."""

from collections.abc import Mapping

from torch import Tensor

from sde.distributed.world import World


def tied_names(state: Mapping[str, Tensor], world: World | None = None) -> dict[str, str]:
    """The further names of tensors in a state dict, each with the first one: those of the same memory and shape."""
    world = world or World()
    first: dict[tuple, str] = {}
    tied = {}
    for name, value in state.items():
        part = world.local(value)
        # Where memory has no address, as on devices that are none, nothing can be told.
        if part.is_meta or not part.data_ptr():
            continue
        place = (part.device, part.data_ptr(), part.dtype, tuple(part.shape), part.stride())
        owner = first.setdefault(place, name)
        if owner != name:
            tied[name] = owner
    return tied


def untied(state: dict[str, Tensor], tied: Mapping[str, str]) -> dict[str, Tensor]:
    """The state dict with every name, from one without those of ``tied``."""
    return state | {name: state[owner] for name, owner in tied.items() if owner in state}
