"""Modes: which modules of a model train, and which are frozen in eval mode."""

from torch import nn


class Modes:
    """The training modes of the modules inside ``module``. Frozen, and in eval mode throughout, is what has parameters
    of which none is trained; and what is in eval mode while the whole is in training mode, where the user put it."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.known: dict[nn.Module, bool] = {}
        if module.training:
            self._freeze()

    def train(self) -> None:
        """The module in training mode; frozen modules stay, also where the whole was in eval mode in between."""
        if not self.module.training:
            self.module.train()
            for module, mode in self.known.items():
                module.training = mode
            self._freeze()
        self.known = {module: module.training for module in self.module.modules()}

    def _freeze(self) -> None:
        for module in self.module.modules():
            if frozen(module):
                module.eval()


def frozen(module: nn.Module) -> bool:
    """Whether a module has parameters, and none of them is trained."""
    trained = [parameter.requires_grad for parameter in module.parameters()]
    return bool(trained) and not any(trained)


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name: those that require a gradient."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
