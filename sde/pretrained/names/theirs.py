"""Names: a foreign network's tensors by our names, one to one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Theirs:
    """A tensor as a source names and shapes it; ``ours`` makes our tensor of theirs, and ``back`` theirs of ours. Where
    we have one tensor of several there, ``name`` holds all, ``ours`` takes and ``back`` returns as many."""

    name: str | tuple[str, ...]
    ours: Callable[..., Tensor] = lambda x: x
    back: Callable[[Tensor], Any] = lambda x: x

    @property
    def names(self) -> tuple[str, ...]:
        """The names there."""
        return (self.name,) if isinstance(self.name, str) else self.name

    def __str__(self) -> str:
        return " and ".join(self.names)


Names = dict[str, Theirs]
"""A foreign network's tensors by our names."""


def layer(here: str, there: str, bias: bool = True) -> Names:
    """Weight and bias of a layer that has the same shape in both."""
    return {f"{here}.{kind}": Theirs(f"{there}.{kind}") for kind in (("weight", "bias") if bias else ("weight",))}


def translate(
    theirs: Mapping[str, Tensor],
    names: Mapping[str, Theirs],
    ours: Mapping[str, Tensor],
    ignored: frozenset[str] = frozenset(),
    computed: Mapping[str, Tensor] = MappingProxyType({}),
) -> dict[str, Tensor]:
    """Foreign tensors by our names, those of ``ours``, the state of our network, on any device; ``names`` has the
    foreign one of each. ``ignored`` are foreign tensors that say nothing to us, as a table computed from options;
    ``computed`` are ours that the source computes, and no file holds, by our names. Raises ValueError, with the first
    three names here and there, where the two do not fit one to one."""
    wanted = {name: names[name] for name in ours if name not in computed}
    missing = [f"{name} (here {here})" for here, there in wanted.items() for name in there.names if name not in theirs]
    known = {name for there in wanted.values() for name in there.names} | ignored
    unknown = [name for name in theirs if name not in known]
    if missing or unknown:
        raise ValueError(
            "the weights do not fit the facts: "
            + "; ".join(
                f"{what} {', '.join(found[:3])}{f' and {len(found) - 3} more' if len(found) > 3 else ''}"
                for what, found in (("the file lacks", missing), ("it has without a place here", unknown))
                if found
            )
        )
    state = {here: _ours(there, [theirs[name] for name in there.names]) for here, there in wanted.items()}
    other = [
        f"{wanted[name]} is {tuple(theirs[wanted[name].names[0]].shape)}, {name} here {tuple(ours[name].shape)}"
        for name, value in state.items()
        if value is None or value.shape != ours[name].shape
    ]
    if other:
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        raise ValueError(f"the weights do not fit the facts: {'; '.join(other[:3])}{more}")
    return {name: value for name, value in state.items() if value is not None} | dict(computed)


def _ours(there: Theirs, tensors: list[Tensor]) -> Tensor | None:
    """Our tensor, or None where theirs have another shape than it is made of."""
    try:
        return there.ours(*tensors)
    except (RuntimeError, IndexError):
        return None


def numbered(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
