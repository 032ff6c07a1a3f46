"""Settings: the options of a k-diffusion model, from the file's tensors, from its config, from facts, or its own
defaults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sde.pretrained.facts import MISSING, Facts, of_kind
from sde.pretrained.foreign import check_size


@dataclass(frozen=True)
class Told:
    """What a file tells of a network here: its name and options, and its weights by our names."""

    network: dict[str, Any]
    event_shape: tuple[int, ...]
    num_classes: int | None
    state: Mapping[str, Tensor]
    null_trained: bool


class Settings:
    """``config`` are the options in the file, empty where there are none. k-diffusion fills what a config leaves out
    with defaults: they hold where there is one, in the file or, told by its ``depths``, among the facts."""

    def __init__(self, facts: Facts, config: Mapping[str, Any]) -> None:
        self.facts, self.config = facts, config
        self.whole = bool(config) or facts.told("depths") is not MISSING

    def of(self, name: str, tensors: Any = MISSING, default: Any = MISSING, kind: type | None = None) -> Any:
        """An option: as the ``tensors`` of the file say it, else as its config or the facts do, else its ``default``.
        Raises ValueError for a contradiction between facts and file, and where nothing says it."""
        found = self.config.get(name, MISSING) if tensors is MISSING else tensors
        if found is MISSING and self.whole and default is not MISSING and self.facts.told(name) is MISSING:
            return default
        return self.facts.settle(name, found, kind)

    def require(self, *defaulted: str) -> None:
        """Ask at once for what neither the config nor the facts say: of every file, and, where no defaults hold, of
        options that are ``defaulted`` else."""
        names = ("input_channels", "input_size", "patch_size", "sigma_min", "sigma_max")
        needed = [name for name in names if name not in defaulted] + ([] if self.whole else [*defaulted])
        self.facts.require({name: self.config.get(name, MISSING) for name in needed})

    def size(self, factor: int | Sequence[int]) -> tuple[int, int]:
        """Height and width of the images. Raises ValueError unless they are two numbers, multiples of the factor by
        which the network makes them smaller, or of one for each axis."""
        size = self.of("input_size")
        if not isinstance(size, Sequence) or len(size) != 2:
            raise ValueError(f"facts: input_size = {size!r}: needs height and width, as [32, 32]")
        height, width = (of_kind("input_size", part, int) for part in size)
        check_size("input_size", (height, width), factor)
        return height, width
