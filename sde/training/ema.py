"""Moving averages of a module's parameters, several at once."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sde.training.ema_profile import exponent
from sde.training.modes import trained_parameters


class Average(ABC):
    """A moving average of the parameters that are trained, in float32; buffers and frozen parameters are copied when
    the averaged state is taken. ``updates`` counts its updates."""

    def __init__(self, module: nn.Module) -> None:
        self.updates = 0
        # Steps change it in place, which inference mode around this would forbid.
        with torch.inference_mode(False):
            self.average = {name: p.detach().float().clone() for name, p in trained_parameters(module).items()}

    @abstractmethod
    def weight(self) -> float:
        """Weight of the newest parameters in update number ``updates``, counted from 1."""

    def update(self, module: nn.Module) -> None:
        """One step towards the parameters of ``module``."""
        self.follow(parameters_of(module))

    @torch.no_grad()
    def follow(self, current: list[Tensor]) -> None:
        """``update`` with the module's parameters in float32."""
        self.updates += 1
        torch._foreach_lerp_(list(self.average.values()), current, self.weight())

    def module_state(self, module: nn.Module) -> dict[str, Tensor]:
        """The state dict of ``module`` with the averaged parameters; where a parameter has several names, as tied
        weights have, they are one tensor in it too."""
        state = {name: value.detach().clone() for name, value in module.state_dict().items()}
        averages: dict[nn.Parameter, Tensor] = {}
        for name, parameter in module.named_parameters(remove_duplicate=False):
            if not parameter.requires_grad:
                continue
            # The first name is that of the average.
            if parameter not in averages:
                averages[parameter] = self.average[name].to(state[name].dtype)
            state[name] = averages[parameter]
        return state

    def state_dict(self) -> dict:
        """For a checkpoint."""
        return {"updates": self.updates, "average": self.average}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a checkpoint; how the average is taken stays as it is."""
        self.updates = state["updates"]
        for name, value in self.average.items():
            value.copy_(state["average"][name])


class EMA(Average):
    """The exponential moving average. The decay warms up, min(decay, (1 + n) / (10 + n)) at update n, so that the
    average forgets the initial weights; with a ``rampup_ratio`` its half-life is at most this share of the n - 1
    updates before instead, min(decay, 2^(-1 / (rampup_ratio (n - 1)))) (Karras et al. 2022, table 7 and appendix F).
    Raises ValueError for a decay outside [0, 1)."""

    def __init__(self, module: nn.Module, decay: float, rampup_ratio: float = 0.0) -> None:
        check_decay(decay)
        super().__init__(module)
        self.decay, self.rampup_ratio = decay, rampup_ratio

    def weight(self) -> float:
        longest = (1 + self.updates) / (10 + self.updates)
        if self.rampup_ratio:
            half_life = self.rampup_ratio * (self.updates - 1)
            longest = 0.5 ** (1 / half_life) if half_life else 0.0
        return 1 - min(self.decay, longest)


def check_decay(decay: float) -> None:
    """Raises ValueError for a decay outside [0, 1)."""
    if not (isinstance(decay, int | float) and 0 <= decay < 1):
        raise ValueError(f"decay = {decay!r}: needs a number from 0 (no averaging) to below 1")


class PowerEMA(Average):
    """The average whose profile is a power of time (Karras et al. 2024, arXiv:2312.02696, section 3.1 and appendix C).

    At update t it is (gamma + 1) / t^(gamma + 1) times the integral of tau^gamma theta(tau) from 0 to t, where theta is
    constant between updates: the parameters of update n weigh (n^(gamma + 1) - (n - 1)^(gamma + 1)) / t^(gamma + 1).
    Hence the decay (1 - 1 / n)^(gamma + 1) of update n (eq. 127), which is zero at first: the initial weights are not
    in it. ``relative_std`` is the profile's standard deviation in units of t; raises ValueError for one that no
    gamma >= 0 has.
    """

    def __init__(self, module: nn.Module, relative_std: float) -> None:
        self.gamma = exponent(relative_std)
        super().__init__(module)

    def weight(self) -> float:
        return 1 - (1 - 1 / self.updates) ** (self.gamma + 1)


class Averages:
    """The averages of a run, updated together.

    ``model_average``, the EMA of ``decay``, stands for the module; the ``extra`` ones are, by name, the EMAs of
    ``decays`` ("0.9999") and the PowerEMAs of ``relative_stds`` ("power-0.05"); ``rampup_ratio`` is that of the EMAs.
    """

    def __init__(
        self,
        module: nn.Module,
        decay: float,
        decays: Sequence[float] = (),
        relative_stds: Sequence[float] = (),
        rampup_ratio: float = 0.0,
    ) -> None:
        self.model_average = EMA(module, decay, rampup_ratio)
        self.decays = {str(extra): EMA(module, extra, rampup_ratio) for extra in decays}
        self.powers = {f"power-{std}": PowerEMA(module, std) for std in relative_stds}

    @property
    def extra(self) -> dict[str, Average]:
        """All but the model's own."""
        return {**self.decays, **self.powers}

    def update(self, module: nn.Module) -> None:
        """One step of each towards the parameters of ``module``, which are read once."""
        current = parameters_of(module)
        for average in (self.model_average, *self.extra.values()):
            average.follow(current)

    @torch.no_grad()
    def restart(self, module: nn.Module) -> None:
        """Begin each with the parameters of ``module``, as if there had been none before, warm-up included."""
        current = parameters_of(module)
        for average in (self.model_average, *self.extra.values()):
            average.updates = 0
            torch._foreach_copy_(list(average.average.values()), current)

    def module_state(self, module: nn.Module) -> dict[str, Tensor]:
        """The state dict of ``module`` with the parameters of the model's average."""
        return self.model_average.module_state(module)

    def state_dict(self) -> dict:
        """For a checkpoint."""
        return self.model_average.state_dict() | {"further": {name: a.state_dict() for name, a in self.extra.items()}}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a checkpoint. An average that is not in it takes the model's for its past, with a warning."""
        self.model_average.load_state_dict(state)
        held = state.get("further", {})
        for name, average in self.extra.items():
            if name not in held:
                warnings.warn(
                    f"the average {name} is not in the checkpoint of step {state['updates']}: it goes on from the main "
                    "average, and is itself only when that is forgotten",
                    UserWarning,
                    stacklevel=2,
                )
            average.load_state_dict(held.get(name, state))


@torch.no_grad()
def follow(average: nn.Module, module: nn.Module, weight: float) -> None:
    """Move the parameters of ``average`` towards those of ``module``, whose weight in it is ``weight``; buffers are
    copied."""
    torch._foreach_lerp_([*average.parameters()], [p.detach() for p in module.parameters()], weight)
    for held, buffer in zip(average.buffers(), module.buffers(), strict=True):
        held.copy_(buffer)


def parameters_of(module: nn.Module) -> list[Tensor]:
    """The trained parameters of a module in float32, without gradients."""
    return [p.detach().float() for p in trained_parameters(module).values()]
