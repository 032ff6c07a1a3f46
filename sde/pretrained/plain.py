"""Plain: a module that a pickle holds, as plain values and tensors by name."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor


class Plain:
    """An object of a pickle as plain values: ``kind``, the name of its class, and its ``state``, the attributes."""

    kind = ""

    def __init__(self, *_: Any) -> None:
        self.__setstate__({})

    def __setstate__(self, state: Any) -> None:
        self.state: dict[str, Any] = dict(state) if isinstance(state, dict) else {}

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments that the object was made with, where the file says them."""
        found = self.state.get("_init_kwargs", {})
        return dict(found) if isinstance(found, dict) else {}

    def tensors(self, prefix: str = "", within: tuple["Plain", ...] = ()) -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers by their names in a ``state_dict``, in its order; ``within`` are the modules around.
        Raises ValueError for what is no tensor, and for a module that contains itself."""
        if any(self is module for module in within):
            raise ValueError(f"it holds a module, {prefix.rstrip('.')}, that contains itself")
        passing = self.state.get("_non_persistent_buffers_set", set())
        for name, value in {**self._members("_parameters"), **self._members("_buffers")}.items():
            if value is None or name in passing:
                continue
            if not isinstance(value, Tensor):
                raise ValueError(f"it holds a {type(value).__name__} as {prefix}{name}, where a tensor belongs")
            yield prefix + name, value
        for name, module in self._members("_modules").items():
            if isinstance(module, Plain):
                yield from module.tensors(f"{prefix}{name}.", (*within, self))

    def _members(self, kind: str) -> dict[str, Any]:
        found = self.state.get(kind, {})
        if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
            raise ValueError(f"it holds a module whose {kind.lstrip('_')} are not by name")
        return found
