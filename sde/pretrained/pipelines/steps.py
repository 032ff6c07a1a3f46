"""Steps: the times at which a scheduler of diffusers calls its network, on a process of ours."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from sde.networks.diffusers_network import diffusers_library
from sde.process.base import SDE
from sde.process.chain import ChainSDE


@dataclass(frozen=True)
class Steps:
    """``times`` (k,), float64, falling: those of a scheduler's network calls and, unless the run ends with the
    posterior mean at the last of them, ``denoise``, the one at which it stops. ``std`` is the standard deviation of the
    noise that the network is shown at the first: sigma there, or 1, which some pipelines begin with instead."""

    times: Tensor
    denoise: bool
    std: float = 1.0

    @property
    def calls(self) -> int:
        """Network calls of a sampler that takes one per step."""
        return len(self.times) - (not self.denoise)

    def of_strength(self, strength: float) -> Self:
        """The last int(``strength`` calls) of them, what image to image walks from data noised to the first (Meng et
        al. 2022, with diffusers' rounding). Raises ValueError for a strength outside (0, 1], and where no two times are
        left."""
        if not 0 < strength <= 1:
            raise ValueError(f"strength = {strength:g}: needs a number above 0, up to 1, which starts from noise alone")
        return self._after(self.calls - int(self.calls * strength), f"strength = {strength:g}")

    def until(self, time: float) -> Self:
        """Those from noise to the first that lies below ``time``, where another model goes on."""
        count = int((self.times >= time).sum())
        if not 0 < count < len(self.times):
            raise ValueError(f"time = {time:g}: needs one between {self.times[-1]:g} and {self.times[0]:g}")
        return replace(self, times=self.times[: count + 1], denoise=False)

    def since(self, time: float) -> Self:
        """Those from the first that lies below ``time``."""
        return self._after(int((self.times >= time).sum()), f"time = {time:g}")

    def _after(self, count: int, told: str) -> Self:
        if len(self.times) - count < 2:
            raise ValueError(f"{told}: of {self.calls} calls it leaves no step, ask for more of them")
        return replace(self, times=self.times[count:])


def scheduler_steps(config: Mapping[str, Any], sde: SDE, steps: int, kind: str = "", **options: Any) -> Steps:
    """The times of ``steps`` network calls as the scheduler of this ``config`` has them, by its timestep_spacing,
    steps_offset and what else decides; of another class of diffusers where ``kind`` names one, as by its from_config.
    ``sde`` is the process of the config; ``options`` are further ones of set_timesteps. Raises ValueError for a class
    that is none of a scheduler and for what it does not take."""
    name = kind or config["_class_name"]
    found: Any = getattr(diffusers_library(), name, None)
    if not hasattr(found, "set_timesteps"):
        raise ValueError(f"scheduler = {name!r}: diffusers has no scheduler of this name")
    scheduler: Any = found.from_config(dict(config))
    try:
        scheduler.set_timesteps(**{"num_inference_steps": steps, **options})
    except (ValueError, TypeError, AssertionError, ZeroDivisionError) as error:
        raise ValueError(f"steps = {steps}: {name} does not take them ({error})") from None
    levels: Any = getattr(scheduler, "sigmas", None)
    if not isinstance(sde, ChainSDE):
        # On the path of flow matching their noise level is our time.
        times = _unique(levels)
        return Steps(times[:-1], True) if times[-1] == 0 else Steps(times, False)
    std = scheduler.scale_model_input(torch.ones(1) * scheduler.init_noise_sigma, scheduler.timesteps[0]).item()
    last = _last(scheduler, sde, levels)
    times = _unique(scheduler.timesteps) / (sde.steps - 1) if levels is None else _times(sde, levels[:-1])
    if sde.open_end and scheduler.timesteps[0] == sde.steps - 1:
        times[0] = sde.t_max
    if last is None or last >= times[-1].item():
        return Steps(times, last is None, std)
    return Steps(torch.cat([times, times.new_tensor([last])]), False, std)


def _times(chain: ChainSDE, levels: Tensor) -> Tensor:
    """The times of noise levels, those of the chain's own steps exactly."""
    steps = chain.t_of_noise_level(_unique(levels)) * (chain.steps - 1)
    return torch.where((steps - steps.round()).abs() < 1e-2, steps.round(), steps) / (chain.steps - 1)


def _unique(levels: Tensor) -> Tensor:
    """Levels or timesteps, of which solvers of several calls per step have one for each of them."""
    return levels.double().cpu().unique_consecutive()


def _last(scheduler: Any, sde: SDE, levels: Tensor | None) -> float | None:
    """Where the last step of a scheduler ends: a time, or None for data without noise."""
    if isinstance(levels, Tensor):
        last = levels[-1].item()
        return None if last == 0 else sde.t_of_noise_level(torch.tensor(last, dtype=torch.float64)).item()
    whole = float(getattr(scheduler, "final_alpha_cumprod", 1.0)) == 1
    return None if whole else sde.t_min
