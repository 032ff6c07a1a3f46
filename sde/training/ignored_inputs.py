"""Ignored inputs: the test whether a network sees what it is given."""

import copy
from typing import cast

import torch
from torch import Tensor

from sde.condition.tree import NULL_LABEL, null_like
from sde.device import double, forked_random
from sde.model.call import call_network
from sde.model.classifier import NoisyClassifier
from sde.model.denoiser import Preconditioned


@torch.no_grad()
def ignored_inputs(model: Preconditioned | NoisyClassifier, event_shape: tuple[int, ...]) -> list[str]:
    """What the network's output does not depend on, in words, of the noise level, each condition and its null.

    Outputs that start at zero depend on nothing, so a copy is asked whose zero parameters have small random values. Its
    rows share one x of unit variance, and differ in one input from the first.
    """
    network = copy.deepcopy(model.network).eval()
    own = next(network.parameters())
    device = own.device
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if not parameter.any():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator, device="cpu"))
    ends = double([model.sde.t_min, model.sde.t_max])
    levels = model.sde.log_snr(ends) @ double([[0.75, 0.25], [0.25, 0.75]])
    c_noise = cast(Tensor, model.network_time(model.sde.level(model.sde.t_of_log_snr(levels))))
    classes, shapes = (model.num_classes, model.conditions) if isinstance(model, Preconditioned) else (None, {})
    first = {"labels": torch.tensor(0, device="cpu")} if classes else {}
    first |= {kind: torch.randn(shape, generator=generator, device="cpu") for kind, shape in shapes.items()}
    words = "its noise level (the output is the same for two values of c_noise)"
    rows: list[tuple[str, Tensor, dict[str, Tensor]]] = [(words, c_noise[1], {})]
    if classes and classes > 1:
        words = "its condition (the output is the same for classes 0 and 1)"
        rows.append((words, c_noise[0], {"labels": torch.tensor(1, device="cpu")}))
    if classes and model.null_trained:
        words = "the null condition (the output is the same for class 0 and for none)"
        rows.append((words, c_noise[0], {"labels": torch.tensor(NULL_LABEL, device="cpu")}))
    for kind, shape in shapes.items():
        other = {kind: torch.randn(shape, generator=generator, device="cpu")}
        rows.append((f"its condition {kind} (the output is the same for two of them)", c_noise[0], other))
        if model.null_trained:
            words = f"the null {kind} (the output is the same for one and for none)"
            rows.append((words, c_noise[0], {kind: null_like(first[kind])}))
    x = torch.randn(1, *event_shape, generator=generator, device="cpu").expand(len(rows) + 1, *event_shape).to(own)
    times = torch.stack([c_noise[0], *(c for _, c, _ in rows)])
    trees = [first, *(first | change for _, _, change in rows)]
    cond = {kind: torch.stack([tree[kind] for tree in trees]).to(device) for kind in first}
    conds = [cond] if cond else []
    with forked_random(device):
        output = call_network(network, x, 1.0, times, *conds, autocast=None)
    least = 1e-6 * output[0].abs().max()
    return [
        words for (words, _, _), row in zip(rows, output[1:], strict=True) if (row - output[0]).abs().max() <= least
    ]
