"""Low-rank updates of layers (LoRA): the few weights by which a trained network is brought to other data."""

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

ALL, ATTENTION = "all", "attention"
"""Targets that are no names: every layer that takes an update, and those within attention."""


@dataclass(frozen=True)
class LoRA:
    """What is updated, and how: the ``rank`` of the updates, their scale ``alpha`` / rank, alpha = rank where that is
    0, and the ``targets``: ALL, ATTENTION, or the ends of names of layers, as "to_q". Raises ValueError for a rank
    below 1, and an alpha below 0."""

    rank: int
    alpha: float = 0.0
    targets: Sequence[str] = (ALL,)

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank = {self.rank}: needs a whole number from 1")
        if not (self.alpha >= 0 and math.isfinite(self.alpha)):
            raise ValueError(f"alpha = {self.alpha:g}: needs a positive number, or 0 for the rank")

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return (self.alpha or self.rank) / self.rank


class LowRank(nn.Module):
    """A layer with a low-rank update, W x + (alpha / r) B A x (Hu et al. 2021, arXiv:2106.09685, eq. 3).

    ``base`` is a linear layer or a convolution without groups, and its parameters are frozen. A, ``lora_A``, leads to
    ``rank`` features, by a convolution as the base's where that is one, and B, ``lora_B``, from there to the base's
    outputs. Entries of A are drawn from N(0, 1 / fan in), those of B are zero, so that the layer begins as its base.
    Whatever else is asked of it, ``weight`` excepted, is the base's.
    """

    base: Any
    lora_A: Any
    lora_B: Any

    def __init__(self, base: Any, rank: int, scale: float = 1.0) -> None:
        super().__init__()
        self.base, self.scale = base.requires_grad_(False), scale
        place = {"device": base.weight.device, "dtype": base.weight.dtype}
        if isinstance(base, nn.Linear):
            self.lora_A = nn.Linear(base.in_features, rank, bias=False, **place)
            self.lora_B = nn.Linear(rank, base.out_features, bias=False, **place)
        else:
            kind: Any = next(kind for kind in CONVOLUTIONS if isinstance(base, kind))
            told = {name: getattr(base, name) for name in ("stride", "padding", "dilation", "padding_mode")}
            self.lora_A = kind(base.in_channels, rank, base.kernel_size, bias=False, **told, **place)
            self.lora_B = kind(rank, base.out_channels, 1, bias=False, **place)
        nn.init.normal_(self.lora_A.weight, std=self.lora_A.weight[0].numel() ** -0.5)
        nn.init.zeros_(self.lora_B.weight)

    def __getattr__(self, name: str) -> Any:
        """The base's attributes, which networks read of their layers."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in ("base", "lora_A", "lora_B"):
                raise
            return getattr(self.base, name)

    @property
    def weight(self) -> Tensor:
        """W + (alpha / r) B A, of the shape of W, for networks that use the weights of a layer themselves."""
        return updated_weight(self.base.weight, self.lora_A.weight, self.lora_B.weight, self.scale)

    def forward(self, x: Tensor, *arguments: Any) -> Tensor:
        return self.base(x, *arguments) + self.scale * self.lora_B(self.lora_A(x))


def updated_weight(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """W + scale B A of a ``weight`` W (out, in, *kernel), of A ``down`` (r, in, *kernel) and B ``up`` (out, r), or both
    with axes of one entry behind; in the dtype of W, but the product and the sum in float32 at least."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    update = up.to(wide).flatten(1) @ down.to(wide).flatten(1)
    return (weight.to(wide) + scale * update.view_as(weight)).to(weight.dtype)


def takes_update(layer: nn.Module) -> bool:
    """Whether a layer is a linear one or a convolution without groups, which does what its class says."""
    plain = any(type(layer).forward is kind.forward for kind in (nn.Linear, *CONVOLUTIONS))
    return plain and getattr(layer, "groups", 1) == 1 and not parametrize.is_parametrized(layer)


def layers_of(module: nn.Module) -> dict[str, nn.Module]:
    """The layers of a module that take an update, by name."""
    return {name: layer for name, layer in module.named_modules() if takes_update(layer)}


def targeted(module: nn.Module, targets: Sequence[str]) -> dict[str, nn.Module]:
    """Those of ``layers_of`` that the ``targets`` of a ``LoRA`` name. Raises ValueError for one that names none."""
    layers, found = layers_of(module), dict[str, None]()
    for target in targets:
        if target == ALL:
            own = list(layers)
        elif target == ATTENTION:
            around = [f"{name}." for name, part in module.named_modules() if "Attention" in type(part).__name__]
            own = [name for name in layers if name.startswith(tuple(around))]
        else:
            own = [name for name in layers if f".{name}".endswith(f".{target}")]
        if not own:
            raise ValueError(f"targets = {target!r}: {_no_target(target, layers)}")
        found |= dict.fromkeys(own)
    return {name: layer for name, layer in layers.items() if name in found}


def _no_target(target: str, layers: Mapping[str, nn.Module]) -> str:
    if target == ATTENTION:
        return f"this network has no attention; take {ALL}, or the ends of names of its layers"
    ends = [*dict.fromkeys(name.rpartition(".")[2] for name in layers)]
    near = difflib.get_close_matches(target, [*ends, *layers, ALL, ATTENTION], 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else f"they end in {', '.join(ends[:12])}{', ...' * (len(ends) > 12)}"
    return f"no linear layer or convolution of this network has a name that ends so; {hint}"


def add_low_rank(network: nn.Module, lora: LoRA) -> list[str]:
    """Freeze a network, and give the layers that ``lora`` targets an update, in place; returned are their names. Raises
    ValueError as ``targeted``."""
    layers = targeted(network, lora.targets)
    network.requires_grad_(False)
    updated = {layer: LowRank(layer, lora.rank, lora.scale) for layer in layers.values()}
    replace_layers(network, updated)
    return [*layers]


def merge_low_rank(module: nn.Module) -> nn.Module:
    """Put W + (alpha / r) B A in the place of W, in place, and leave out the updates; returned is the module, whose
    parameters are trained again where there were any."""
    merged: dict[nn.Module, nn.Module] = {layer: _merged(layer) for _, layer in low_rank_layers(module)}
    if merged:
        replace_layers(module, merged)
        module.requires_grad_(True)
    return module


def low_rank_layers(module: nn.Module) -> Iterator[tuple[str, LowRank]]:
    """The layers with an update, by name."""
    return ((name, layer) for name, layer in module.named_modules() if isinstance(layer, LowRank))


def base_names(module: nn.Module) -> dict[str, str]:
    """The names of a module's state dict that are not of updates, with what they were called before there were any."""
    updates = [name for name, _ in low_rank_layers(module)]
    own = tuple(f"{name}.lora_{factor}." for name in updates for factor in "AB")
    names = {name: name for name in module.state_dict() if not name.startswith(own)}
    for update in updates:
        inside = f"{update}.base."
        names |= {name: f"{update}.{name.removeprefix(inside)}" for name in names if name.startswith(inside)}
    return names


@torch.no_grad()
def _merged(layer: LowRank) -> nn.Module:
    # In a tensor of its own, as other layers may share the old one.
    layer.base.weight = nn.Parameter(layer.weight)
    return layer.base


def replace_layers(module: nn.Module, others: Mapping[nn.Module, nn.Module]) -> None:
    """Put other layers in the place of some, wherever in the module they stand."""
    for parent in [*module.modules()]:
        # The same layer may stand in several places of one.
        for name, child in [*parent._modules.items()]:
            if child is not None and child in others:
                setattr(parent, name, others[child])
