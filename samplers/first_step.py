"""The first step of a run that begins where alpha = 0, the same for every sampler that has none of its own."""

from torch import Tensor

from samplers.host import double
from samplers.protocol import FlowMap, asks_of
from samplers.step import Noise, Result, Stepper


def is_open(process, t: Tensor) -> bool:
    """Whether a 0-d time is the open noise end of a process, where alpha = 0."""
    return bool(getattr(process, "open_end", False)) and t.item() >= process.t_max


def t_finite(process) -> float:
    """The last time at which drift and diffusion are finite: ``t_max`` but for an open noise end."""
    return process.t_finite if getattr(process, "open_end", False) else process.t_max


def t_signal(process) -> float:
    """The noise end of grids of noise levels: ``t_max`` but for an open one."""
    return process.t_signal if getattr(process, "open_end", False) else process.t_max


def step(sampler: Stepper, model, x: Tensor, t: Tensor, s: Tensor, noise: Noise, carry=None) -> Result:
    """The sampler's step from t to s; from an open noise end, where x is sigma z and D = E[x_0] whatever x, x_s =
    alpha_s D + sigma_s z. A sampler that chooses its own steps begins with it, up to alpha / sigma = 1e-3; one that is
    ``from_open_end`` has a step of its own there, and a flow map knows its own way."""
    process, own = model.sde, getattr(sampler, "from_open_end", False)
    if own or asks_of(sampler) is FlowMap or not is_open(process, t):
        return sampler.step(model, x, t, s, noise, carry)
    adaptive = bool(getattr(sampler, "adaptive", False))
    u = double(max(process.t_signal, s.item())) if adaptive else s
    start, end = process.level(t), process.level(u)
    x = (end.sigma / start.sigma) * x + end.alpha * model(x, t)
    return sampler.step(model, x, u, s, noise, carry) if u > s else (x, carry)
