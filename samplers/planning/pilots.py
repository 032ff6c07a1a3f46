"""Pilot samples: where a model's probability-flow ODE leads a few of them, and what a step costs on the way."""

import math
from itertools import pairwise

import numpy as np
import torch
from scipy.interpolate import make_interp_spline
from torch import Tensor, nn

from samplers.calls import Watch
from samplers.deis import ExponentialAdams
from samplers.first_step import t_signal
from samplers.grid import make_grid, times_of_log_snr
from samplers.host import send
from samplers.loop.sample import points, sample
from samplers.noise.door import as_noise
from samplers.planning.fitted import gathered, pick, predicted_errors
from samplers.step import Stepper

MAX_COORDINATES = 2048
"""How many coordinates of an event are looked at."""


class Pilots(nn.Module):
    """Pilot samples with their probability-flow trajectories, which can be looked at anywhere: a score model that
    replays what the network said along them, whatever x."""

    def __init__(self, model, x: Tensor, steps: int, generator: torch.Generator) -> None:
        super().__init__()
        self.sde, self.end = model.sde, x
        keep = torch.randperm(x[0].numel(), generator=generator, device="cpu")[:MAX_COORDINATES].sort().values
        self.keep = send(keep, x.device)
        # Picked on the way: whole states of so fine a run could fill the memory.
        states, denoised = [pick(x, self.keep)], []

        def arrive(step: int, s: Tensor, x: Tensor) -> None:
            self.end = x
            states.append(pick(x, self.keep))

        times = make_grid(model.sde, "log_snr", steps, t_signal(model.sde))
        with Watch(model, see=lambda x, t, output: denoised.append(pick(output, self.keep))):
            sample(model, ExponentialAdams(4, "noise"), x, times, callback=arrive)
        alpha, sigma = model.sde.alpha(times)[:, None, None], model.sde.sigma(times)[:, None, None]
        picked, answers = gathered(states), gathered(denoised)
        self.log_ratio = (model.sde.log_snr(times) / 2).numpy()
        self._state = make_interp_spline(self.log_ratio, (picked / alpha).numpy(), 5)
        self._noise = make_interp_spline(self.log_ratio, ((picked - alpha * answers) / sigma).numpy(), 5)
        end = self.state(self.log_ratio[-1])
        self.spread = (end - end.mean(0)).square().mean().sqrt().item()

    def state(self, log_ratio: float | np.ndarray) -> Tensor:
        """x / alpha on the trajectories, (*shape of log_ratio, P, C)."""
        return torch.from_numpy(self._state(log_ratio))

    def noise(self, log_ratio: float | np.ndarray) -> Tensor:
        """The noise prediction on the trajectories."""
        return torch.from_numpy(self._noise(log_ratio))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The denoised prediction on the trajectories, (P, C)."""
        log_ratio = self.sde.level(t).log_snr / 2
        return self.state(log_ratio) - np.exp(-log_ratio) * self.noise(log_ratio)

    def distances(self, x: Tensor) -> Tensor:
        """Distances of x (P, *event) from the ends of the trajectories, relative to the root mean square of their ends,
        (P,)."""
        gap, end = torch.stack([x - self.end, self.end]).cpu().double().flatten(2)
        return gap.norm(dim=1) / end.square().sum(1).mean().sqrt()

    def contracted(self, log_ratios: np.ndarray, left: Tensor) -> Tensor:
        """Errors ``left`` (steps, P) in x / alpha at the ends of a grid's steps, contracted as the flow of N(0,
        spread^2) contracts them on the way to the data, up to a factor: divided by sqrt(spread^2 + noise_level^2)."""
        return left / torch.from_numpy(np.hypot(self.spread, np.exp(-log_ratios[1:])))[:, None]

    def predicted_error(self, sampler: Stepper, times: Tensor) -> float:
        """The accumulated error of a sampler whose every step begins on the trajectories; no network calls."""
        log_ratios = (self.sde.log_snr(times) / 2).numpy()
        alpha = self.sde.alpha(times)
        states, carry, left = self.state(log_ratios), None, []
        for i, (t, s) in enumerate(pairwise(points(self.sde, times))):
            x, carry = sampler.step(self, alpha[i] * states[i], t, s, as_noise(torch.zeros_like, self.sde), carry)
            left.append((x / alpha[i + 1] - states[i + 1]).norm(dim=1))
        return _typical(self.contracted(log_ratios, torch.stack(left)))


def _typical(left: Tensor) -> float:
    """The mean-logarithmic size over the pilots of the errors (steps, P) of all steps together."""
    return left.square().sum(0).sqrt().clamp(min=1e-300).log().mean().exp().item()


def equidistributed(pilots: Pilots, steps: int, rounds: int = 8) -> Tensor:
    """The best of ``rounds`` grids, each of which moves the one before towards equal errors of its steps.

    The density of steps in log(alpha / sigma) follows the eighth root of the error that a fitted step leaves, smoothed
    over neighbors: a step of a fitted method of reach eight has about that order. No network calls.
    """
    sde = pilots.sde
    ends = pilots.log_ratio[[0, -1]]
    log_ratios = np.linspace(ends[0], ends[1], steps + 1)
    best = (math.inf, log_ratios)
    for _ in range(rounds):
        left = predicted_errors(log_ratios, pilots.state(log_ratios), pilots.noise(log_ratios))
        left = pilots.contracted(log_ratios, left).clamp(min=1e-300)
        size = _typical(left)
        if size < best[0]:
            best = (size, log_ratios)
        each = left.log().mean(1).exp().numpy()
        density = np.log((each / each.max() + 1e-9) ** (1 / 8) / np.diff(log_ratios))
        padded = np.pad(density, 1, mode="edge")
        density = np.exp(0.7 * density + 0.15 * (padded[:-2] + padded[2:]))
        passed = np.concatenate([[0], np.cumsum(density * np.diff(log_ratios))])
        log_ratios = np.interp(np.linspace(0, 1, steps + 1), passed / passed[-1], log_ratios)
        log_ratios[[0, -1]] = ends
    return times_of_log_snr(sde, 2 * torch.from_numpy(best[1]), t_signal(sde))
