"""What moment matching costs, and how many of its iterations can be paid."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from sde import ScoreModel

PAID = {"cpu": 3e13, "": 3e15}
"""Floating-point operations that restoring may take, minutes of a CPU and of other devices ("")."""
ITERATIONS = (8, 3, 1)
"""Of conjugate gradients: exact on Gaussian data to the bars of docs/guidance.md, close, and the least."""


def passes(iterations: int) -> int:
    """Passes through the network for each of its calls: the call, and two for every vector-Jacobian product."""
    return 1 + 2 * (iterations + 1)


@torch.no_grad()
def operations(model: ScoreModel, event_shape: tuple[int, ...], device: torch.device) -> float:
    """Floating-point operations of one call for one sample, those of matrix products and convolutions."""
    x = torch.zeros(1, *model.transform.inner_shape(event_shape), device=device)
    with FlopCounterMode(display=False) as counter:
        model.rows(slice(0, 1))(x, torch.tensor((model.sde.t_min + model.sde.t_max) / 2, dtype=torch.float64))
    return float(counter.get_total_flops())


def paid_iterations(
    model: ScoreModel, event_shape: tuple[int, ...], device: torch.device, samples: int, calls: int
) -> int:
    """The most of ITERATIONS with which this many samples of so many network calls stay below PAID, or the least."""
    each = samples * calls * operations(model, event_shape, device)
    paid = PAID.get(device.type, PAID[""])
    return next((count for count in ITERATIONS if each * passes(count) <= paid), ITERATIONS[-1])
