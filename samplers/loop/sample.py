"""The sampling loop."""

from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise

import torch
from torch import Tensor

from samplers.checks import check_finite, check_model, check_sampler, check_state, checking_outputs
from samplers.grid import check_times
from samplers.loop.lookup import scheduled
from samplers.noise.door import as_noise
from samplers.step import Stepper

Callback = Callable[[int, Tensor, Tensor], bool | None]
"""``callback(step, s, x)`` after each step, with the state x at its arrival time s; True ends the run there."""


@torch.no_grad()
def sample(
    model,
    sampler: Stepper,
    x: Tensor,
    times: Tensor,
    noise: Callable[[Tensor], Tensor] = torch.randn_like,
    *,
    denoise: bool = True,
    callback: Callback | None = None,
) -> Tensor:
    """Carry x (B, *event), drawn at times[0], to times[-1] by the steps of a sampler; in model units.

    ``times`` (steps + 1,) are strictly decreasing; with ``denoise`` the process's last call follows, of a Gaussian one
    the posterior mean at the time reached. ``noise`` is like ``torch.randn_like``, or a ``samplers.protocol.Noise``.
    ``callback(step, s, x)`` sees x after each step; where it returns True, that step was the last. Raises ValueError or
    TypeError for bad input, for a sampler that needs another process, and for a model that returns anything but a
    tensor like x; FloatingPointError that names step, noise level and samples where x became non-finite.
    """
    check_model(model)
    check_sampler(sampler, model.sde)
    times = check_times(times, model.sde)
    check_state(x, model)
    draws = as_noise(noise, model.sde)
    carry, sums, made = None, [], 0
    with scheduled(model, times) as points, ExitStack() as first_step:
        # One step's calls are checked: those of the others take the same way through the model.
        first_step.enter_context(checking_outputs(model))
        for step, (t, s) in enumerate(pairwise(points)):
            x, carry = sampler.step(model, x, t, s, draws.between(t, s), carry)
            first_step.close()
            # Read only after the loop, and only on failure: reading here would make the CPU wait for the device.
            sums.append(x.sum())
            made = step + 1
            if callback is not None and callback(step, s, x):
                break
        if denoise:
            x = model.sde.last_call(model, x, s, draws)
            sums.append(x.sum())
    check_finite(x, sums, times[: made + 1], len(times) - 1, model.sde)
    return x
