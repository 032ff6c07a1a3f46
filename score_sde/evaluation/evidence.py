"""The evidence bound of a run in latents: log p(x) from below, by the autoencoder and the flow of its latents."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from samplers import EvidenceBound, evidence_bound
from samplers.likelihood.report import MeanAndError
from samplers.progress import Progress
from score_sde.run.folder import Run
from sde import ScoreModel
from sde.device import placed

PARTS = ("reconstruction", "prior", "entropy")


@dataclass(frozen=True)
class Evidence:
    """Bounds of items: ``unit``, "bits/dim" of quantized data, where less is better, or "nats", where more is, and
    ``nats`` (n,) of each item, with what the draws leave open of it, ``stderr`` (n,). By name the means over the items
    of the ``bound``, of the tighter ``importance`` where that is known, and of the parts that make the bound."""

    unit: str
    nats: Tensor
    stderr: Tensor
    means: dict[str, MeanAndError]
    nfe: Tensor

    def summary(self) -> dict[str, Any]:
        """Plain values, for JSON; the bound under the name of its unit."""
        bound, *rest = self.means.items()
        return {
            "nats" if self.unit == "nats" else "bits_per_dim": bound[1].mean,
            "stderr": bound[1].stderr,
            **{name: [found.mean, found.stderr] for name, found in rest},
            "nfe": round(self.nfe.double().mean().item(), 1),
        }


def evidence_of(
    run: Run, model: ScoreModel, x: Tensor, draws: int, batch_size: int, settings: dict[str, Any], name: str = "bound"
) -> Evidence:
    """The bounds of items x (n, *event) in data units by so many ``draws`` of each; ``settings`` are what
    ``evidence_bound`` takes. Several processes share the work, and each gets all of it."""
    parts, world = [], run.world
    mine = world.rows(len(x))
    bar = Progress(total=mine.stop - mine.start, desc=name, unit="item", disable=not world.is_main)
    with bar:
        for rows in world.batches(len(x), batch_size):
            part = model.rows(rows), placed(x[rows], run.device)
            parts.append(evidence_bound(*part, draws=draws, first=rows.start, **settings))
            bar.update(rows.stop - rows.start)
    every = world.all_gather_flat(parts)
    found = EvidenceBound(*(_joined([getattr(part, field) for part in every]) for field in vars(every[0])))
    levels = model.transform.num_levels
    factor = -1 / (x[0].numel() * math.log(2)) if levels else 1.0
    values = {"bound": found.nats, "importance": found.importance}
    values |= {part: getattr(found, part) for part in PARTS}
    means = {part: _mean(factor * nats) for part, nats in values.items() if nats is not None}
    return Evidence("bits/dim" if levels else "nats", found.nats, found.stderr, means, found.nfe)


def _joined(parts: list) -> Any:
    return None if parts[0] is None else torch.cat(parts)


def _mean(values: Tensor) -> MeanAndError:
    return MeanAndError(values.mean().item(), values.std().item() / len(values) ** 0.5 if len(values) > 1 else math.nan)


def lines_of(found: Evidence, about: str, draws: int, trace: str) -> list[str]:
    """The bound for people."""
    bound, importance = found.means["bound"], found.means.get("importance")
    said = "at most" if found.unit == "bits/dim" else "at least"
    within = found.stderr.square().mean().sqrt().item()
    lines = [
        f"{about}, in {found.unit}, by {draws} draws of latents each, {trace}:",
        "  (the exact likelihood is an integral over all latents; this is the evidence bound of autoencoder and flow)",
        f"  evidence bound              {said} {bound}",
    ]
    if importance is not None:
        lines.append(f"  importance-weighted         {said} {importance}")
    parts = ", ".join(f"{name} {found.means[name].mean:.4f}" for name in PARTS)
    return [
        *lines,
        f"  its parts                   {parts}: log p(x | z), log p(z) by the flow, -log q(z | x)",
        f"  {found.nfe.double().mean().item():g} network calls each; draws leave {within:.3g} nats of an item open",
    ]
