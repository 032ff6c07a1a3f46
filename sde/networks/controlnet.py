"""ControlNet: a frozen network, and trainable copies of its encoder that see a control image (Zhang et al. 2023)."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sde.condition.tree import Condition, Shapes, control_kind, is_control
from sde.networks.encoding import Controllable
from sde.networks.hint import HintEncoder
from sde.networks.layers import CONVOLUTIONS, zero_init


class ZeroConvolution(nn.Module):
    """A convolution of width 1 over (B, channels, *space), or with ``tokens`` over the last axis; zero at first."""

    def __init__(self, channels: int, dims: int, tokens: bool) -> None:
        super().__init__()
        layer: nn.Module = nn.Linear(channels, channels) if tokens else CONVOLUTIONS[dims](channels, channels, 1)
        self.layer = zero_init(layer)

    def forward(self, h: Tensor) -> Tensor:
        return self.layer(h)


class ControlBranch(nn.Module):
    """forward(x, c_noise, cond, control) -> the residuals of a base's taps, Z(copy(x + Z(E(c)))) (eq. 2 and 3).

    ``copy`` starts as the encoder of the base, E is a HintEncoder, each Z a convolution that starts at zero. A row of
    the control with a NaN has no control: its residuals are zero, and the base is alone.
    """

    def __init__(self, base: Any, control_shape: Sequence[int], hint_channels: Sequence[int]) -> None:
        super().__init__()
        self.hint = HintEncoder(control_shape, base.hint_shape, hint_channels)
        self.copy = copy.deepcopy(base).train().requires_grad_(True)
        for name in reversed(base.decoder):
            place, _, last = name.rpartition(".")
            # It may be none, as the head of a NCSN++ whose outputs are skips.
            self.copy.get_submodule(place)._modules.pop(last, None)
        dims = len(base.hint_shape) - 1
        self.zeros = nn.ModuleList(ZeroConvolution(count, dims, base.tokens) for count in base.tap_channels)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None, control: Tensor) -> list[Tensor]:
        absent = control.flatten(1).isnan().any(1)
        hint = self.hint(control.to(x.dtype).nan_to_num())
        taps = self.copy.encode(x, c_noise, cond, hint).taps
        residuals = (zero(tap) for zero, tap in zip(self.zeros, taps, strict=True))
        return [torch.where(absent.view(-1, *[1] * (r.ndim - 1)), 0.0, r) for r in residuals]


class ControlNet(nn.Module):
    """forward(x, c_noise, cond) -> the output of a frozen ``base`` to whose taps the residuals of one or several
    controls are added, each times its scale: tap + sum_i scale_i residual_i.

    ``base`` is a network that is Controllable; ``controls`` are the shapes (C, *space) of the controls, without rows.
    ``cond`` has the conditions of the base, and the controls by kind: "control", "control_2" and so on
    (sde.condition.tree.control_kind); None is all null. Before training, and at scales of 0, the output is that of the
    base, bit for bit; at scales of 0 the copies are not called. ``scales`` are 1 at first. Raises ValueError for a base
    that is not Controllable, and for controls that do not fit it.
    """

    def __init__(
        self, base: nn.Module, controls: Sequence[Sequence[int]], hint_channels: Sequence[int] = (16, 32)
    ) -> None:
        super().__init__()
        check_base(base)
        self.base = base.requires_grad_(False).eval()
        self.branches = nn.ModuleList(ControlBranch(base, shape, hint_channels) for shape in controls)
        self.scales = [1.0] * len(self.branches)
        self.num_classes: int | None = getattr(base, "num_classes", None)

    @property
    def conditions(self) -> Shapes:
        """The shapes of what the base is conditioned on, and of the controls."""
        own = {control_kind(number): branch.hint.shape for number, branch in enumerate(self.parts)}
        return {**getattr(self.base, "conditions", {}), **own}

    @property
    def parts(self) -> list[ControlBranch]:
        """The branches."""
        return [branch for branch in self.branches if isinstance(branch, ControlBranch)]

    @property
    def has_null(self) -> bool:
        """Whether the base can be called without its conditions."""
        return bool(getattr(self.base, "has_null", True))

    def train(self, mode: bool = True) -> "ControlNet":
        """The branches in training mode; the base, which is frozen, stays in eval mode."""
        super().train(mode)
        self.base.eval()
        return self

    def adopt(self, base: nn.Module) -> None:
        """Take the weights of a network for the base, and for the copies where they begin. Raises RuntimeError, as
        ``load_state_dict``, for those of another network."""
        state = base.state_dict()
        self.base.load_state_dict(state)
        for branch in self.parts:
            known = branch.copy.state_dict().keys()
            branch.copy.load_state_dict({name: value for name, value in state.items() if name in known})

    def with_branches(self, others: Sequence["ControlNet"], scales: Sequence[float] | None = None) -> "ControlNet":
        """The base with the branches of this and other ControlNets on the same base, in their order."""
        found = copy.copy(self)
        found._modules = dict(self._modules)
        found.branches = nn.ModuleList([*self.branches, *(branch for other in others for branch in other.branches)])
        found.scales = [*(scales or [1.0] * len(found.branches))]
        return found

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        controls, rest = split_controls(cond)
        base: Any = self.base
        encoding = base.encode(x, c_noise, rest)
        total: list[Tensor] = []
        for number, (branch, scale) in enumerate(zip(self.parts, self.scales, strict=True)):
            control = controls.get(control_kind(number))
            if scale == 0 or control is None:
                continue
            own = branch(x, c_noise, rest, control)
            own = own if scale == 1 else [scale * residual for residual in own]
            total = [a + b for a, b in zip(total, own, strict=True)] if total else own
        return base.decode(x, c_noise, encoding, total)


def split_controls(cond: Condition | None) -> tuple[Condition, Condition | None]:
    """The controls of a condition, and the rest of it, None where there is none; what is bound stays bound."""
    if cond is None:
        return {}, None
    rest = type(cond)({kind: c for kind, c in cond.items() if not is_control(kind)})
    return {kind: c for kind, c in cond.items() if is_control(kind)}, rest or None


def check_base(base: nn.Module) -> None:
    """Raise ValueError for a network that no ControlNet can be put around."""
    if isinstance(base, ControlNet):
        raise ValueError(
            "the base has a control itself: train each control on the base without any, and sample them together"
        )
    if not isinstance(base, Controllable):
        raise ValueError(
            f"{type(base).__name__} takes no control: needs a network with an encoder and a decoder "
            "(sde.networks.encoding.Controllable), as unet, ncsnpp, adm, linear_attention_unet, mapped_unet, hdit or "
            "dit"
        )
    if not base.tap_channels:
        raise ValueError(f"{type(base).__name__} of one block takes no control: needs depth = 2 at least")
