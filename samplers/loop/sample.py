"""The sampling loop."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from samplers import first_step
from samplers.calls import Watch
from samplers.checks import as_states, check_finite, check_sampled, check_state
from samplers.grid import check_times
from samplers.host import undisturbed
from samplers.noise.door import as_noise
from samplers.protocol import Noise
from samplers.step import Stepper

Callback = Callable[[int, Tensor, Tensor], bool | None]
"""``callback(step, s, x)`` after each step, with the state x at its arrival time s; True ends the run there."""


@undisturbed
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
    the posterior mean at the time reached, or the sampler's own. ``noise`` is like ``torch.randn_like``, or a
    ``samplers.protocol.Noise``. ``callback(step, s, x)`` sees x after each step; where it returns True, that step was
    the last. Raises ValueError or TypeError for bad input, for a sampler that needs another process, and for a model
    that returns anything but a tensor like x; FloatingPointError that names step, noise level and samples where x
    became non-finite.
    """
    check_sampled(model, sampler)
    times = check_times(times, model.sde)
    x = as_states(x, model)
    check_state(x, model)
    with Watch(model) as watch:
        return run(model, sampler, x, times, as_noise(noise, model.sde), watch, denoise=denoise, callback=callback)


@torch.no_grad()
def run(
    model,
    sampler: Stepper,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    watch: Watch,
    *,
    denoise: bool = True,
    callback: Callback | None = None,
    looking: bool = True,
    at: list[Tensor] | None = None,
) -> Tensor:
    """What ``sample`` does, of arguments that were checked and a model that ``watch`` watches. Where it is not
    ``looking``, it takes no sum of every state, which says at which step one failed, and leaves the end unchecked.
    ``at`` are the ``points`` of the times, where somebody has them already."""
    carry, sums, made = None, [], 0
    for step, (t, s) in enumerate(pairwise(at or points(model.sde, times))):
        x, carry = first_step.step(sampler, model, x, t, s, noise.between(t, s), carry)
        # One step's outputs are checked: those of the others take the same way through the model.
        watch.first_step_made()
        if looking:
            # Read only after the loop, and only on failure: reading here would make the CPU wait for the device.
            sums.append(x.sum())
        made = step + 1
        if callback is not None:
            with watch.paused():
                stop = callback(step, times[made], x)
            if stop:
                break
    if denoise:
        own = getattr(sampler, "last_call", None)
        x = model.sde.last_call(model, x, s, noise) if own is None else own(model, x, s, noise, carry)
        sums.append(x.sum())
    if looking:
        check_finite(x, sums, times[: made + 1], len(times) - 1, model.sde)
    return x


def points(process, times: Tensor) -> list[Tensor]:
    """The times as 0-d tensors, at which a process that has levels remembers them for the run."""
    own = getattr(process, "points", None)
    return list(times.unbind()) if own is None else own(times)
