"""An exponential moving average of a module's parameters."""

import torch
from torch import Tensor, nn


class EMA:
    """Averages parameters only, in float32; buffers are copied when the averaged state is taken.

    The decay warms up, min(decay, (1 + n) / (10 + n)) at update n, so that the average forgets the initial weights.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ema decay = {decay}: needs a number from 0 (no averaging) to below 1")
        self.decay = decay
        self.updates = 0
        self.average = {name: p.detach().float().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """One step towards the parameters of ``module``."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        current = [p.detach().float() for p in module.parameters()]
        torch._foreach_lerp_(list(self.average.values()), current, 1 - decay)

    def module_state(self, module: nn.Module) -> dict[str, Tensor]:
        """The state dict of ``module`` with the averaged parameters."""
        state = {name: value.detach().clone() for name, value in module.state_dict().items()}
        return state | {name: value.to(state[name].dtype) for name, value in self.average.items()}

    def state_dict(self) -> dict:
        """For a checkpoint."""
        return {"decay": self.decay, "updates": self.updates, "average": self.average}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a checkpoint; the decay stays that of this run."""
        self.updates = state["updates"]
        for name, value in self.average.items():
            value.copy_(state["average"][name])
