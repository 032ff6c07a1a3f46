"""The test whether a network of one's own takes what it is given, and returns what is asked of it."""

import copy

import torch

from sde.device import forked_random
from sde.model.classifier import NoisyClassifier
from sde.model.denoiser import Denoiser
from sde.named import is_path


@torch.no_grad()
def check_forward(name: str, model: Denoiser | NoisyClassifier, event_shape: tuple[int, ...]) -> None:
    """Call the network of an import path once, with two items; one of the project's own is not asked. Raises ValueError
    where ``forward`` does not take (x, c_noise, cond), of a classifier (x, c_noise), or returns another shape."""
    if not is_path(name):
        return
    classes = model.num_classes
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    x = torch.zeros(2, *event_shape, device=device)
    cond = {}
    if isinstance(model, Denoiser):
        cond = {kind: x.new_zeros(2, *shape) for kind, shape in model.conditions.items()}
        cond |= {"labels": torch.zeros(2, dtype=torch.long, device=device)} if classes else {}
    try:
        t = torch.tensor(model.sde.t_max)
        with forked_random(device):
            # A copy, as buffers may change.
            tried = copy.deepcopy(model).eval()
            output = tried(x, t, cond or None) if isinstance(model, Denoiser) else tried(x, t)
    except Exception as error:
        told = "x, c_noise, cond" if isinstance(model, Denoiser) else "x, c_noise"
        kinds = f" and cond of {', '.join(cond)}" if cond else ""
        raise ValueError(
            f"network = {name!r}: forward({told}) failed for x of shape {tuple(x.shape)}, c_noise of shape (2,){kinds} "
            f"({type(error).__name__}: {error})"
        ) from error
    wanted = x.shape if isinstance(model, Denoiser) else (2, classes)
    if output.shape != wanted:
        raise ValueError(
            f"network = {name!r}: forward returned shape {tuple(output.shape)} for x of shape {tuple(x.shape)}, and "
            f"needs {tuple(wanted)}"
        )
