"""The choice of sampler and time grid for one model and a number of network calls, made on a few pilot samples."""

from dataclasses import dataclass, field
from itertools import chain, pairwise

import numpy as np
import torch
from scipy.interpolate import make_interp_spline
from torch import Tensor, nn

from samplers.calls import CallCounter, evaluating
from samplers.checks import check_count, check_event_shape, check_model
from samplers.exponential import PREDICTIONS
from samplers.fitted import Fitter, LinearMultistep, imagined_errors
from samplers.grid import make_grid
from samplers.loop import sample
from samplers.multistep import ExponentialAdams
from samplers.noise import SeededNoise, sample_seeds
from samplers.step import Sampler

BUDGET = 200
"""What a plan may cost, in samples of the planned number of calls."""

COORDINATES = 2048
"""How many coordinates of an event the fits look at."""

FIXED_GRIDS = ("log_snr", "karras")

MARGIN = 1.25
"""A fixed sampler is taken already where the fitted one, which was fitted to these pilots, is not better by this."""


@dataclass(frozen=True)
class Plan:
    """``sampler`` and ``times`` (calls + 1,) for a run of ``calls`` network calls without a final denoising one.

    ``error`` is the median over the pilots of the distance to where the probability-flow ODE leads, relative to the root
    mean square of those ends; ``errors`` has it for every candidate that was run. ``cost`` is what planning took, in
    network calls.
    """

    sampler: Sampler
    times: Tensor
    error: float
    cost: int
    errors: dict[str, float] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        """Network calls of a sample."""
        return len(self.times) - 1


class Pilots(nn.Module):
    """Pilot samples with their probability-flow trajectories, which can be looked at anywhere: a score model that
    replays what the network said along them, whatever x."""

    def __init__(self, model, x: Tensor, steps: int, generator: torch.Generator) -> None:
        super().__init__()
        self.sde, self.start, self.end = model.sde, x, x
        states, denoised = [x], []
        handle = model.register_forward_hook(lambda module, args, output: denoised.append(output))
        with handle:
            times = make_grid(model.sde, "log_snr", steps)
            sample(model, ExponentialAdams(4, "v"), x, times, callback=lambda step, s, x: states.append(x))
        self.end = states[-1]
        count = x[0].numel()
        self.keep = torch.randperm(count, generator=generator)[:COORDINATES].sort().values
        alpha, sigma = model.sde.alpha(times)[:, None, None], model.sde.sigma(times)[:, None, None]
        picked, answers = (torch.stack([self.pick(part) for part in parts]) for parts in (states, denoised))
        self.log_ratio = (model.sde.log_snr(times) / 2).numpy()
        self._state = make_interp_spline(self.log_ratio, (picked / alpha).numpy(), 5)
        self._noise = make_interp_spline(self.log_ratio, ((picked - alpha * answers) / sigma).numpy(), 5)
        end = self.state(self.log_ratio[-1])
        self.spread = (end - end.mean(0)).square().mean().sqrt().item()

    def pick(self, x: Tensor) -> Tensor:
        """The coordinates that are looked at, (P, C) in float64 on the CPU."""
        return x.flatten(1)[:, self.keep.to(x.device)].cpu().double()

    def state(self, log_ratio: float | np.ndarray) -> Tensor:
        """x / alpha on the trajectories, (*shape of log_ratio, P, C)."""
        return torch.from_numpy(self._state(log_ratio))

    def noise(self, log_ratio: float | np.ndarray) -> Tensor:
        """The noise prediction on the trajectories."""
        return torch.from_numpy(self._noise(log_ratio))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The denoised prediction on the trajectories, (P, C)."""
        log_ratio = self.sde.log_snr(t).item() / 2
        return self.state(log_ratio) - np.exp(-log_ratio) * self.noise(log_ratio)

    def distance(self, x: Tensor) -> Tensor:
        """From where the trajectories end, relative to the root mean square of their ends, (P,)."""
        gap, end = (part.double().flatten(1).cpu() for part in (x - self.end, self.end))
        return gap.norm(dim=1) / end.square().sum(1).mean().sqrt()

    def accumulated(self, log_ratios: np.ndarray, left: Tensor) -> float:
        """Mean-logarithmic size of the errors ``left`` (steps, P) by a grid's steps in x / alpha, each as the flow of
        Gaussian data of the ends' spread would shrink it on the way."""
        shrink = 1 / np.hypot(self.spread, np.exp(-log_ratios[1:]))
        total = (left * torch.from_numpy(shrink)[:, None]).square().sum(0).sqrt()
        return total.clamp(min=1e-300).log().mean().exp().item()

    def imagined(self, sampler: Sampler, times: Tensor) -> float:
        """The accumulated error of a sampler whose every step begins on the trajectories; no network calls."""
        log_ratios = (self.sde.log_snr(times) / 2).numpy()
        alpha = self.sde.alpha(times)
        states, carry, left = self.state(log_ratios), None, []
        for i, (t, s) in enumerate(pairwise(times)):
            x, carry = sampler.step(self, alpha[i] * states[i], t, s, None, carry)
            left.append((x / alpha[i + 1] - states[i + 1]).norm(dim=1))
        return self.accumulated(log_ratios, torch.stack(left))


def equidistributed(pilots: Pilots, steps: int, rounds: int = 8) -> Tensor:
    """The best of ``rounds`` grids, each of which moves the one before towards equal errors of its steps.

    The density of steps in log(alpha / sigma) follows the eighth root of the error that a fitted step leaves, smoothed
    over neighbours: a step of a fitted method of reach eight has about that order. No network calls.
    """
    sde = pilots.sde
    ends = pilots.log_ratio[[0, -1]]
    log_ratios, best = np.linspace(*ends, steps + 1), (np.inf, None)
    for _ in range(rounds):
        left = imagined_errors(log_ratios, pilots.state(log_ratios), pilots.noise(log_ratios))
        size = pilots.accumulated(log_ratios, left)
        if size < best[0]:
            best = (size, log_ratios)
        shrink = 1 / np.hypot(pilots.spread, np.exp(-log_ratios[1:]))
        each = left.clamp(min=1e-300).log().mean(1).exp().numpy() * shrink
        density = np.log((each / each.max() + 1e-9) ** (1 / 8) / np.diff(log_ratios))
        padded = np.pad(density, 1, mode="edge")
        density = np.exp(0.7 * density + 0.15 * (padded[:-2] + padded[2:]))
        passed = np.concatenate([[0], np.cumsum(density * np.diff(log_ratios))])
        log_ratios = np.interp(np.linspace(0, 1, steps + 1), passed / passed[-1], log_ratios)
        log_ratios[[0, -1]] = ends
    times = sde.t_of_log_snr(2 * torch.from_numpy(best[1]))
    times[0], times[-1] = sde.t_max, sde.t_min
    return times


def plan(model, event_shape: tuple[int, ...], calls: int, *, seed: int = 0) -> Plan:
    """Find the deterministic sampler and grid of ``calls`` network calls that best follow the probability-flow ODE.

    Sixteen pilot samples are solved finely; on their trajectories a grid is found whose steps have equal errors, and a
    run of the pilots on it fits the weights of a LinearMultistep, step by step, to where the trajectories are. The best
    fixed samplers (exponential Adams methods of order 1 to 4 on noise, denoised or v, on FIXED_GRIDS) run as well, and
    the best of all on the pilots is the plan. It takes no gradients through the network, and fewer network calls than
    ``BUDGET`` samples. The pilots' noise is none of the samples' of the same ``seed``; conditions bound to the model
    must have a row for each pilot (see ``pilot_count``). Raises ValueError for arguments out of range.
    """
    check_model(model)
    check_count("calls", calls)
    check_event_shape(model, event_shape)
    count = pilot_count(calls)
    like = next((p for p in chain(model.parameters(), model.buffers()) if p.is_floating_point()), torch.empty(0))
    generator = torch.Generator().manual_seed(seed)
    noise = SeededNoise([s + 2**31 for s in sample_seeds(seed, count)])
    x = noise(like.new_empty((count, *event_shape))) * model.sde.sigma(torch.tensor(model.sde.t_max))
    model = model.rows(slice(0, count))
    with evaluating(model), torch.no_grad(), CallCounter(model, count) as counter:
        pilots = Pilots(model, x, max(6 * calls, min(48, 150 * calls // count)), generator)
        times = equidistributed(pilots, calls)
        fitter = Fitter(pilots.state, pilots.keep)
        found = {"fitted": (pilots.distance(sample(model, fitter, x, times, denoise=False)), None, times)}
        found["fitted"] = (found["fitted"][0], fitter.fitted(times), times)
        fixed = {
            f"eab-{order}-{prediction}-{grid}": (ExponentialAdams(order, prediction), make_grid(model.sde, grid, calls))
            for order in range(1, min(calls, 4) + 1)
            for prediction in PREDICTIONS
            for grid in FIXED_GRIDS
        }
        promising = sorted(fixed, key=lambda name: pilots.imagined(*fixed[name]))
        passes = counter.calls.mean().item() / (len(pilots.log_ratio) + calls)
        for name in promising[:2]:
            if counter.calls.mean().item() * count > passes * calls * (BUDGET - count):
                break
            sampler, times = fixed[name]
            found[name] = (pilots.distance(sample(model, sampler, x, times, denoise=False)), sampler, times)
    errors = {name: distance.median().item() for name, (distance, _, _) in found.items()}
    best = min(errors, key=lambda name: errors[name] * (MARGIN if name == "fitted" else 1))
    _, sampler, times = found[best]
    return Plan(sampler, times, errors[best], round(counter.calls.sum().item()), errors)


def pilot_count(calls: int) -> int:
    """How many pilot samples a plan of so many calls draws."""
    return 16 if calls >= 5 else 8
