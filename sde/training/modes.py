"""Modes: which modules of a model train, and which are frozen in eval mode."""

from torch import nn


class Modes:
    """The training modes of the modules inside ``module``: what is in eval mode while the whole is in training mode
    was put there by the user, as frozen."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.known: dict[nn.Module, bool] = {}

    def train(self) -> None:
        """The module in training mode; frozen modules stay, also where the whole was in eval mode in between."""
        if not self.module.training:
            self.module.train()
            for module, mode in self.known.items():
                module.training = mode
        self.known = {module: module.training for module in self.module.modules()}
