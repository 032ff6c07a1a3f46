"""The likelihood report, with what is needed to trust it: where its standard error comes from, bounds, and checks."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samplers.checks import as_states, check_integer, check_model
from samplers.host import as_tensor, double, placed, undisturbed
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
from samplers.padding import Sizes, check_sizes, cut, filled, real_counts
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
    """``unit``: "bits/dim" of quantized data, less is better, or "nats" of continuous data, more is better. A padded
    item has as many dimensions as entries that are real.

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

    def in_unit(self, nats: Tensor, event_shape: tuple[int, ...], sizes: Tensor | None = None) -> Tensor:
        """log p (n,) in nats of items, of these ``sizes`` where they are padded, in the unit of the report."""
        return nats if self.unit == "nats" else -nats / (real_counts(sizes, event_shape) * math.log(2))

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


def dequantized(transform: Transform, x: Tensor, seed: int, draw: int = 0, sizes: Tensor | None = None) -> Tensor:
    """Quantized x plus uniform noise in [0, 1), that of an item by seed, draw and its number alone; or continuous x. Of
    items of these ``sizes`` what is padded has none."""
    x = as_tensor(x, "x")
    if not transform.num_levels:
        return x
    keys = item_seeds(seed, DEQUANTIZATION, len(x), draw=draw)
    u = filled(x.shape, sizes, lambda row, part: np.random.Generator(np.random.Philox(keys[row])).random(part))
    return transform.dequantize(x, u.to(x.dtype))


def report_work(
    transform: Transform, count: int, *, dequantizations: int = 1, subset: int = 32, rows=lambda n: slice(n)
) -> int:
    """How many items ``likelihood_report`` of ``count`` tells its ``progress`` of, an item as often as it is evaluated;
    ``rows`` (World.rows) is the part of n items that a process has."""
    few = min(subset, count)
    again = 1 if transform.num_levels and dequantizations == 1 else 0
    whole, parts = (len(range(n)[rows(n)]) for n in (count, few))
    # The draws and two bounds; a second draw of the subset, the check of the solver and the bound at t = 0.
    return whole * (dequantizations + 2) + parts * (again + 2)


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
    sizes: Sizes | None = None,
) -> LikelihoodReport:
    """Evaluate log p(x) of x (n, *event) in data units, as its integers where quantized; see LikelihoodReport.

    ``dequantizations`` of each item are averaged; with one, the first ``subset`` items get a second, so that its
    part of the standard error is known. ``probes`` are those of log_likelihood. ``bound_draws`` are the network calls
    per item of each bound, whose discrete chain has ``discrete_steps``. ``progress(items)`` hears of finished work,
    ``report_work`` in all.
    ``world`` (sde.distributed.world.World) shares the items among processes, each of which gets the whole report.
    ``sizes`` (n,) say how much of padded items is real, as in ``generate``.
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
        raise ValueError(
            f"x has {len(x)} item{'s' * (len(x) != 1)}: a standard error needs at least 2; give more, or ask "
            "log_likelihood, which tells none"
        )
    transform, sde = transform_of(model), model.sde
    if dequantizations > 1 and not transform.num_levels:
        raise ValueError(f"dequantizations = {dequantizations}: these data are continuous; leave it at 1")
    device = next((p.device for p in model.parameters()), x.device)
    count, few = len(x), min(subset, len(x))
    real = check_sizes(sizes, count, x.shape[1:])
    x, dims = cut(x, real), real_counts(real, x.shape[1:]).expand(count)

    def own(rows: Tensor | slice) -> Tensor | None:
        return None if real is None else real[rows]

    def batches(function, points: Tensor) -> list:
        parts, mine = [], range(len(points)) if world is None else range(len(points))[world.rows(len(points))]
        for first in mine[::batch_size]:
            rows = torch.arange(first, min(first + batch_size, mine.stop), device="cpu")
            some = points[first : first + len(rows)]
            parts.append(function(model.rows(rows), placed(some, device), first, own(rows)))
            if progress is not None:
                progress(len(rows))
        return parts if world is None else world.all_gather_flat(parts)

    def ode(points: Tensor, draw: int, scale: float = 1.0) -> LogLikelihood:
        def evaluate(rows, part: Tensor, first: int, sizes: Tensor | None) -> LogLikelihood:
            key = seed + draw * DRAW_OFFSET
            options: dict[str, Any] = {"probes": probes, "seed": key, "first": first, "guided": guided, "sizes": sizes}
            found = log_likelihood(rows, part, rtol=scale * rtol, atol=scale * atol, **options)
            return LogLikelihood(*(value.cpu() for value in vars(found).values()))

        parts = batches(evaluate, points)
        return LogLikelihood(*(torch.cat([getattr(p, name) for p in parts]) for name in vars(parts[0])))

    unit = "bits/dim" if transform.num_levels else "nats"

    def in_unit(nats: Tensor) -> Tensor:
        # The items of the subset are the first.
        return nats.cpu().double() if unit == "nats" else -nats.cpu().double() / (dims[: nats.shape[-1]] * math.log(2))

    def estimate(nats: Tensor) -> MeanAndError:
        values = in_unit(nats)
        stderr = values.std().item() / len(values) ** 0.5 if len(values) > 1 else math.nan
        return MeanAndError(values.mean().item(), stderr)

    points = dequantized(transform, x, seed, sizes=real)
    first = ode(points, 0)
    runs = [first]
    runs += [ode(dequantized(transform, x, seed, draw, real), draw) for draw in range(1, dequantizations)]
    nats = torch.stack([run.nats.double() for run in runs])
    if dequantizations > 1 or unit == "nats":
        again = nats[:, :few]
    else:
        second = ode(dequantized(transform, x[:few], seed, 1, own(slice(few))), 1)
        again = torch.stack([nats[0, :few], second.nats.double()])
    probe_variance = torch.stack([run.stderr.double() ** 2 for run in runs]).mean(0)
    mean = estimate(nats.mean(0))
    parts = _split(mean.stderr, in_unit(again), probe_variance, in_unit, count, dequantizations)
    inner = points[:few]
    tight = ode(inner, 0, CHECK_TOLERANCE)
    alpha, sigma = (f(double(sde.t_min)) for f in (sde.alpha, sde.sigma))
    seeds, subset_sizes = [number + START_OFFSET for number in sample_seeds(seed, few)], own(slice(few))
    noise = as_noise(SeededNoise(seeds, None if subset_sizes is None else subset_sizes.tolist()), sde)
    encoded = transform.encode(inner)
    noisy = ode(transform.decode(alpha * encoded + sigma * noise(encoded)), 0)
    options: dict[str, Any] = {"draws": bound_draws, "seed": seed}
    bounds = {
        "variational": batches(lambda m, part, k, own: variational_bound(m, part, first=k, sizes=own, **options), x),
        "discrete": batches(
            lambda m, part, k, own: discrete_bound(m, part, discrete_steps, first=k, sizes=own, **options), x
        ),
    }
    return LikelihoodReport(
        unit=unit,
        ode=mean,
        stderr_parts=parts,
        importance=None
        if dequantizations == 1 or probes is not None
        else estimate(nats.logsumexp(0) - math.log(len(nats))),
        bound_at_zero=estimate(noisy.nats + dims[:few] * alpha.log()),
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
    # In the square of the unit.
    variance = probe_variance * in_unit(torch.ones_like(probe_variance)).square()
    probes = (variance.mean().item() / (repeats * count)) ** 0.5
    within = again.var(0).mean().item() if len(again) > 1 else 0.0
    own = variance[: again.shape[1]].mean().item()
    dequantization = (max(within - own, 0.0) / (repeats * count)) ** 0.5
    data = max(total**2 - probes**2 - dequantization**2, 0.0) ** 0.5
    return {"data": data, "dequantization": dequantization, "probes": probes}
