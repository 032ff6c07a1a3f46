"""The plan: a sampler and a time grid for one model and a number of network calls, chosen on a few pilot samples."""

from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from samplers.calls import Watch, evaluating
from samplers.checks import check_event_shape, check_integer, check_model, tensor_like
from samplers.deis import ExponentialAdams
from samplers.first_step import t_signal
from samplers.grid import make_grid, times_of_log_snr
from samplers.host import double, undisturbed
from samplers.loop.sample import sample
from samplers.noise.door import as_noise
from samplers.noise.seeded import PILOT_OFFSET, SeededNoise, sample_seeds
from samplers.numerics.exponential import PREDICTIONS
from samplers.planning.fit import ROBUST_PART, mean_log
from samplers.planning.fitted import Fitter, LinearMultistep
from samplers.planning.pilots import Pilots, equidistributed
from samplers.protocol import GaussianProcess, transform_of

BUDGET = 200
"""Cost of a plan at most, in samples of the planned number of calls."""

FEW = 8
"""Below so many calls several grids are tried, and from there on one: more pilots are worth more."""

GRIDS_OF_FEW = {"equal": (1.0, 1.0), "equal-0.85": (1.0, 0.85), "equal-0.7": (1.0, 0.7), "halfway": (0.5, 1.0),
                "halfway-0.85": (0.5, 0.85)}  # fmt: skip
"""Grids for a few calls: the part of the grid of equal errors, the rest of the uniform one, and the power of the
fractions of log(alpha / sigma), which below one moves the times towards the data."""

FIXED_GRIDS = ("log_snr", "karras")

FITTED_MARGIN = 1.25
"""A fixed sampler is taken where a fitted one, which has seen these pilots, is not better by this factor."""

FOUND = {"linear_multistep": LinearMultistep, "deis": ExponentialAdams}
"""Samplers of plans, by the name that a record gives them."""


@dataclass(frozen=True)
class Plan:
    """``sampler`` and ``times`` (calls + 1,) for a run of ``calls`` network calls, a final denoising one not counted.

    ``error`` is the median over the pilots of the distance to where the probability-flow ODE leads, relative to the
    root mean square of those ends; ``errors`` has it for every candidate that ran. ``cost`` is what planning took, in
    network calls on one sample, and ``samples`` the number of planned samples that take as many.
    """

    sampler: LinearMultistep | ExponentialAdams
    times: Tensor
    error: float
    cost: int
    samples: float
    errors: dict[str, float] = field(default_factory=dict)

    @property
    def nfe(self) -> int:
        """Network calls of a sample, a final denoising one not counted."""
        return len(self.times) - 1

    def record(self) -> dict:
        """The plan as plain values, for JSON."""
        name = next(name for name, kind in FOUND.items() if isinstance(self.sampler, kind))
        plain = {"sampler": name, "options": asdict(self.sampler), "times": self.times.tolist()}
        about = {"error": self.error, "cost": self.cost, "samples": self.samples, "errors": self.errors}
        return plain | about

    @classmethod
    def of_record(cls, record: dict) -> "Plan":
        """The plan of a record; KeyError, TypeError or ValueError where it is none."""
        options = record["options"]
        if "weights" in options:
            options = {"times": tuple(options["times"]), "weights": tuple(map(tuple, options["weights"]))}
        sampler = FOUND[record["sampler"]](**options)
        times = double(record["times"])
        if not (times[1:] < times[:-1]).all() or tuple(times.tolist()) != options.get("times", tuple(times.tolist())):
            raise ValueError("times must be decreasing, and those of the sampler")
        return cls(sampler, times, *(record[name] for name in ("error", "cost", "samples", "errors")))


def pilot_count(calls: int) -> int:
    """How many pilot samples a plan of so many calls draws: as many as its budget solves finely and runs."""
    # The first call is the same on all grids of few calls.
    fitted = calls if calls >= FEW else len(GRIDS_OF_FEW) * (calls - 1) + 1
    return BUDGET * calls // (fine_steps(calls) + 1 + fitted + calls)


def fine_steps(calls: int) -> int:
    """Steps of the pilots' solution: enough for errors a tenth of the planned ones."""
    return 12 + 3 * calls


@undisturbed
def plan(model, event_shape: tuple[int, ...], calls: int, *, seed: int = 0) -> Plan:
    """Find the deterministic sampler and grid of ``calls`` network calls that best follow the probability-flow ODE.

    Pilot samples are solved finely; on their trajectories a grid is found whose steps leave equal errors, and a run of
    the pilots on it fits the weights of a LinearMultistep, step by step, to where the trajectories are; below ``FEW``
    calls so do runs on GRIDS_OF_FEW. The most promising of the fixed samplers (exponential Adams methods of order 1 to
    4 on noise, denoised or v, on FIXED_GRIDS) runs as well, and the best on the pilots is the plan. There are no
    gradients through the network, and at most ``BUDGET`` samples' worth of its calls. The pilots' noise is none of the
    samples' of the same ``seed``. Conditions bound to the model need a row for each of ``pilot_count(calls)`` pilots.
    Raises ValueError for arguments out of range, ArithmeticError where no candidate stays finite.
    """
    check_model(model, GaussianProcess, "plan")
    check_integer("calls", calls)
    check_event_shape(model, event_shape)
    count = pilot_count(calls)
    noise = as_noise(SeededNoise([number + PILOT_OFFSET for number in sample_seeds(seed, count)]), model.sde)
    inner_shape = transform_of(model).inner_shape(event_shape)
    x = model.sde.sample_prior(tensor_like(model).new_empty((count, *inner_shape)), noise)
    model = model.rows(torch.arange(count, device="cpu"))
    with evaluating(model), torch.no_grad(), Watch(model, count) as counter:
        fine = fine_steps(calls)
        pilots = Pilots(model, x, fine, torch.Generator().manual_seed(seed))
        run = counter.nfe.mean().item() / (fine + 1) * calls
        found: dict[str, tuple[Tensor, LinearMultistep | ExponentialAdams, Tensor]] = {}
        for name, candidate, times in _candidates(pilots, calls):
            try:
                end = sample(model, candidate, x, times, denoise=False)
            except ArithmeticError:
                continue
            sampler = candidate.fitted(times) if isinstance(candidate, Fitter) else candidate
            found[name] = (pilots.distances(end), sampler, times)
    if not found:
        raise ArithmeticError(f"no sampler with {calls} calls stays finite on this model: check its output")
    errors = {name: distances.median().item() for name, (distances, _, _) in found.items()}
    best = min(found, key=lambda name: size(found[name][0]) * (FITTED_MARGIN if name.startswith("fitted") else 1))
    _, sampler, times = found[best]
    cost = counter.nfe.sum().item()
    return Plan(sampler, times, errors[best], round(cost), cost / run, errors)


def size(distances: Tensor) -> float:
    """The size of the pilots' distances (P,) that a plan makes small, as its fits do: their mean-logarithmic one."""
    squares = distances.square()
    return (mean_log(squares, ROBUST_PART * squares.median()) / 2).exp().item()


def _candidates(pilots: Pilots, calls: int) -> list[tuple[str, Fitter | ExponentialAdams, Tensor]]:
    """Names, samplers and grids."""
    sde, start = pilots.sde, t_signal(pilots.sde)
    even, equal = (
        sde.log_snr(grid) for grid in (make_grid(sde, "log_snr", calls, start), equidistributed(pilots, calls))
    )
    heard: dict[tuple[float, ...], Tensor] | None = {} if calls < FEW else None
    fitted: list[tuple[str, Fitter | ExponentialAdams, Tensor]] = []
    for name, (part, power) in GRIDS_OF_FEW.items() if calls < FEW else [("equal", (1.0, 1.0))]:
        blend = part * equal + (1 - part) * even
        passed = ((blend - blend[0]) / (blend[-1] - blend[0])) ** power
        times = times_of_log_snr(sde, blend[0] + (blend[-1] - blend[0]) * passed, start)
        fitted.append((f"fitted-{name}", Fitter(pilots.state, pilots.keep, heard), times))
    grids = {grid: make_grid(sde, grid, calls, start) for grid in FIXED_GRIDS}
    fixed = [
        (f"deis-{order}-{prediction}-{grid}", ExponentialAdams(order, prediction), times)
        for order in range(1, min(calls, 4) + 1)
        for prediction in PREDICTIONS
        for grid, times in grids.items()
    ]
    return [*fitted, min(fixed, key=lambda candidate: pilots.predicted_error(*candidate[1:]))]
