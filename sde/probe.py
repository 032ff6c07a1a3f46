"""Whether a network sees what it is given."""

import copy

import torch
from torch import nn

from sde.condition import NULL_LABEL
from sde.model import Denoiser, call_network, noise_input


@torch.no_grad()
def ignored_inputs(model: nn.Module, event_shape: tuple[int, ...]) -> list[str]:
    """What the network's output does not depend on, in words, of the noise level, the class and the null class.

    Outputs that start at zero depend on nothing, so a copy is asked whose zero parameters have small random values. Its
    rows share one x of unit variance, and differ in one input from the first.
    """
    network = copy.deepcopy(model.network).eval()
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if not parameter.any():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    ends = torch.tensor([model.sde.t_min, model.sde.t_max], dtype=torch.float64)
    levels = model.sde.log_snr(ends) @ torch.tensor([[0.75, 0.25], [0.25, 0.75]], dtype=torch.float64)
    c_noise = noise_input(model.sde, model.sde.t_of_log_snr(levels))
    classes = model.num_classes if isinstance(model, Denoiser) else None
    rows = [("its noise level (the output is the same for two values of c_noise)", c_noise[1], 0)]
    if classes and classes > 1:
        rows.append(("its condition (the output is the same for classes 0 and 1)", c_noise[0], 1))
    if classes and model.null_trained:
        rows.append(("the null condition (the output is the same for class 0 and for none)", c_noise[0], NULL_LABEL))
    x = torch.randn(1, *event_shape, generator=generator).expand(len(rows) + 1, *event_shape).to(device)
    times = torch.stack([c_noise[0], *(c for _, c, _ in rows)])
    cond = [torch.tensor([0, *(y for _, _, y in rows)], device=device)] if classes else []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        output = call_network(network, x, torch.ones((), dtype=torch.float64), times, *cond, autocast=None)
    least = 1e-6 * output[0].abs().max()
    return [
        words for (words, _, _), row in zip(rows, output[1:], strict=True) if (row - output[0]).abs().max() <= least
    ]
