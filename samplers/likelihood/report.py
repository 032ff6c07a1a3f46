"""The likelihood report, with what is needed to trust it: where its standard error comes from, bounds, and checks."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samplers.checks import as_states, check_integer, check_model
from samplers.host import as_tensor, double, undisturbed
from samplers.likelihood.bounds import discrete_bound, variational_bound
from samplers.likelihood.flow import LogLikelihood, log_likelihood
from samplers.noise.door import as_noise
from samplers.noise.seeded import (
    DEQUANTIZATION,
    DRAW_OFFSET,
    START_OFFSET,
    SeededNoise,
    item_seeds,
    sample_seeds,
)
from samplers.protocol import GaussianProcess, Transform, transform_of

CHECK_TOLERANCE = 0.1
"""Factor of the tolerances in the check of the solver."""


@dataclass(frozen=True)
class MeanAndError:
    """A mean over items with its standard error, in the unit of its report."""

    mean: float
    stderr: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} +- {self.stderr:.4f}"


@dataclass(frozen=True)
class LikelihoodReport:
    """``unit``: "bits/dim" of quantized data, less is better, or "nats" of continuous data, more is better.

    ``ode`` is the value by the probability-flow ODE, of the density of x_t at t_min, and for quantized data the bound
    by uniform dequantization; ``stderr_parts`` its standard error's parts by data, dequantization and probes, whose
    squares add up to its square. ``importance``, with several dequantizations and the exact trace, is the tighter
    importance-weighted bound. ``bound_at_zero`` bounds the likelihood at t = 0 by the density at t_min, on the subset,
    and ``at_t_min`` is ``ode`` there. ``variational`` and ``discrete`` are the bounds of samplers.likelihood.bounds.
    ``tolerance_change`` is the largest change of an item of the subset at a tenth of the tolerances. ``nats`` (n,) are
    the items' values, ``stderr`` (n,) what the probes leave open of them; ``nfe`` and ``rejected`` (n,) count network
    calls and rejected steps of their first draw.
    """

    unit: str
    ode: MeanAndError
    stderr_parts: dict[str, float]
    importance: MeanAndError | None
    bound_at_zero: MeanAndError
    at_t_min: MeanAndError
    variational: MeanAndError
    discrete: MeanAndError
    discrete_steps: int
    subset: int
    tolerance_change: float
    nats: Tensor
    stderr: Tensor
    nfe: Tensor
    rejected: Tensor

    def in_unit(self, nats: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """log p in nats, in the unit of the report."""
        return nats if self.unit == "nats" else -nats / (math.prod(event_shape) * math.log(2))

    def summary(self) -> dict:
        """The report as plain values, for JSON; the mean under the name of its unit."""
        kinds = ("importance", "bound_at_zero", "at_t_min", "variational", "discrete")
        found = {kind: getattr(self, kind) for kind in kinds if getattr(self, kind) is not None}
        return {
            "nats" if self.unit == "nats" else "bits_per_dim": self.ode.mean,
            "stderr": self.ode.stderr,
            "stderr_parts": self.stderr_parts,
            **{kind: [estimate.mean, estimate.stderr] for kind, estimate in found.items()},
            "nfe": round(self.nfe.double().mean().item(), 1),
            "nfe_max": int(self.nfe.max()),
            "rejected": round(self.rejected.double().mean().item(), 2),
            "tolerance_change": self.tolerance_change,
        }


def dequantized(transform: Transform, x: Tensor, seed: int, draw: int = 0) -> Tensor:
    """Quantized x plus uniform noise in [0, 1), that of an item by seed, draw and its number alone; or continuous x."""
    x = as_tensor(x, "x")
    if not transform.num_levels:
        return x
    keys = item_seeds(seed, DEQUANTIZATION, len(x), draw=draw)
    rows = [np.random.Generator(np.random.Philox(key)).random(x.shape[1:]) for key in keys]
    return transform.dequantize(x, torch.from_numpy(np.stack(rows)).to(x.dtype))


@undisturbed
def likelihood_report(
    model,
    x: Tensor,
    *,
    dequantizations: int = 1,
    probes: int | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    seed: int = 0,
    batch_size: int = 256,
    guided: bool = False,
    subset: int = 32,
    bound_draws: int = 32,
    discrete_steps: int = 1000,
    progress=None,
    world=None,
) -> LikelihoodReport:
    """Evaluate log p(x) of x (n, *event) in data units, as its integers where quantized; see LikelihoodReport.

    ``dequantizations`` of each item are averaged; with one, the first ``subset`` items get a second, so that its
    part of the standard error is known. ``probes`` are those of log_likelihood. ``bound_draws`` are the network calls
    per item of each bound, whose discrete chain has ``discrete_steps``. ``progress(items)`` hears of finished work.
    ``world`` (sde.distributed.world.World) shares the items among processes, each of which gets the whole report.
    Raises ValueError as log_likelihood does, and for one probe, one item, or dequantizations of continuous data.
    """
    check_model(model, GaussianProcess, "likelihood_report")
    x = as_states(x, model)
    check_integer("dequantizations", dequantizations)
    check_integer("subset", subset, 2)
    check_integer("batch_size", batch_size)
    if probes is not None:
        # One cannot tell what it leaves open; more share its network calls.
        check_integer("probes", probes, 2)
    if len(x) < 2:
        raise ValueError(f"{len(x)} items: a standard error needs at least 2")
    transform, sde = transform_of(model), model.sde
    if dequantizations > 1 and not transform.num_levels:
        raise ValueError(f"dequantizations = {dequantizations}: these data are continuous; leave it at 1")
    device = next((p.device for p in model.parameters()), x.device)
    count, few = len(x), min(subset, len(x))
    dim = x[0].numel()

    def batches(function, points: Tensor) -> list:
        parts, mine = [], range(len(points)) if world is None else range(len(points))[world.rows(len(points))]
        for first in mine[::batch_size]:
            rows = torch.arange(first, min(first + batch_size, mine.stop), device="cpu")
            parts.append(function(model.rows(rows), points[rows].to(device), first))
            if progress is not None:
                progress(len(rows))
        return parts if world is None else world.all_gather_flat(parts)

    def ode(points: Tensor, draw: int, scale: float = 1.0) -> LogLikelihood:
        def evaluate(rows, part: Tensor, first: int) -> LogLikelihood:
            key = seed + draw * DRAW_OFFSET
            options: dict[str, Any] = {"probes": probes, "seed": key, "first": first, "guided": guided}
            found = log_likelihood(rows, part, rtol=scale * rtol, atol=scale * atol, **options)
            return LogLikelihood(*(value.cpu() for value in vars(found).values()))

        parts = batches(evaluate, points)
        return LogLikelihood(*(torch.cat([getattr(p, name) for p in parts]) for name in vars(parts[0])))

    unit = "bits/dim" if transform.num_levels else "nats"

    def in_unit(nats: Tensor) -> Tensor:
        return nats.double().cpu() if unit == "nats" else -nats.double().cpu() / (dim * math.log(2))

    def estimate(nats: Tensor) -> MeanAndError:
        values = in_unit(nats)
        stderr = values.std().item() / len(values) ** 0.5 if len(values) > 1 else math.nan
        return MeanAndError(values.mean().item(), stderr)

    points = dequantized(transform, x, seed)
    first = ode(points, 0)
    runs = [first] + [ode(dequantized(transform, x, seed, draw), draw) for draw in range(1, dequantizations)]
    nats = torch.stack([run.nats.double() for run in runs])
    if dequantizations > 1 or unit == "nats":
        again = nats[:, :few]
    else:
        second = ode(dequantized(transform, x[:few], seed, 1), 1)
        again = torch.stack([nats[0, :few], second.nats.double()])
    probe_variance = torch.stack([run.stderr.double() ** 2 for run in runs]).mean(0)
    mean = estimate(nats.mean(0))
    parts = _split(mean.stderr, in_unit(again), probe_variance, in_unit, count, dequantizations)
    inner = points[:few]
    tight = ode(inner, 0, CHECK_TOLERANCE)
    alpha, sigma = (f(double(sde.t_min)) for f in (sde.alpha, sde.sigma))
    noise = as_noise(SeededNoise([number + START_OFFSET for number in sample_seeds(seed, few)]), sde)
    encoded = transform.encode(inner)
    noisy = ode(transform.decode(alpha * encoded + sigma * noise(encoded)), 0)
    options: dict[str, Any] = {"draws": bound_draws, "seed": seed}
    bounds = {
        "variational": batches(lambda m, part, k: variational_bound(m, part, first=k, **options), x),
        "discrete": batches(lambda m, part, k: discrete_bound(m, part, discrete_steps, first=k, **options), x),
    }
    return LikelihoodReport(
        unit=unit,
        ode=mean,
        stderr_parts=parts,
        importance=None
        if dequantizations == 1 or probes is not None
        else estimate(nats.logsumexp(0) - math.log(len(nats))),
        bound_at_zero=estimate(noisy.nats + dim * alpha.log()),
        at_t_min=estimate(first.nats[:few]),
        **{name: estimate(torch.cat([bound.nats.cpu() for bound in found])) for name, found in bounds.items()},
        discrete_steps=discrete_steps,
        subset=few,
        tolerance_change=(in_unit(tight.nats) - in_unit(first.nats[:few])).abs().max().item(),
        nats=nats.mean(0),
        stderr=(probe_variance / dequantizations).sqrt(),
        nfe=first.nfe,
        rejected=first.rejected,
    )


def _split(total: float, again: Tensor, probe_variance: Tensor, in_unit, count: int, repeats: int) -> dict[str, float]:
    """The parts of a standard error, from repeated draws (k, few) and the probes' variance (n,) in nats."""
    unit = in_unit(torch.ones((), device="cpu")).abs().item()
    probes = unit * (probe_variance.mean().item() / (repeats * count)) ** 0.5
    within = again.var(0).mean().item() if len(again) > 1 else 0.0
    own = unit**2 * probe_variance[: again.shape[1]].mean().item()
    dequantization = (max(within - own, 0.0) / (repeats * count)) ** 0.5
    data = max(total**2 - probes**2 - dequantization**2, 0.0) ** 0.5
    return {"data": data, "dequantization": dequantization, "probes": probes}
