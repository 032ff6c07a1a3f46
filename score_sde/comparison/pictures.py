"""Pictures of a comparison: the first samples of every candidate, from the same seeds."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from samplers import Samples
from score_sde.comparison.candidates import Candidate
from score_sde.comparison.sampling import Drawn
from score_sde.pages.items import items
from score_sde.plots.pictures import drawn, limits_of, outside
from score_sde.run.folder import Run
from score_sde.run.outputs import calls
from sde.condition.tree import labels_of
from sde.data import Dataset
from sde.data.statistics import spread


def pictures(
    run: Run,
    ran: Sequence[tuple[Candidate, Drawn]],
    exact: Mapping[str, Samples],
    held_out: Dataset,
    labels: Tensor | None,
) -> dict[str, list[tuple[str, bytes | str]]]:
    """Headings, and below each captions with PNGs or HTML: the first samples of the candidates by their budget, those
    of the exact flow, and held-out items. Nothing for what has no picture."""
    kind, levels = run.kind, held_out.transform.num_levels
    count = kind.examples(held_out.event_shape)
    index = spread(len(held_out), count)
    real, their = held_out.batch(index)
    # One scale for all, that of real items, so that a sampler that goes astray does not make the others alike.
    limits = limits_of(real, kind=kind, levels=levels, sizes=held_out.sizes_of(index))

    def shown(
        caption: str, x: Tensor, own: Tensor | None, sizes: Tensor | None = None
    ) -> list[tuple[str, bytes | str]]:
        own = None if own is None else own[:count]
        first = None if sizes is None else sizes[:count]
        picture = drawn(x[:count], kind=kind, levels=levels, labels=own, sizes=first, limits=limits)
        away = outside(x[:count], limits, kind=kind) if limits is not None else 0
        caption += f", {away} of {min(count, len(x))} outside" * bool(away)
        both = picture, items(x, kind, levels, held_out.about, sizes)
        return [(caption, content) for content in both if content]

    found: dict[str, list[tuple[str, bytes | str]]] = {}
    for candidate, its in sorted(ran, key=lambda one: one[0].budget or math.inf):
        heading = calls(candidate.budget) if candidate.budget else "Steps of its own choice"
        caption = candidate.title if candidate.budget else f"{candidate.title}, tolerance {candidate.tolerance:g}"
        found.setdefault(heading, []).extend(shown(caption, its.x, labels, its.sizes))
    last = found.setdefault("To compare with", [])
    for entrant, flow in exact.items():
        of = f" of {entrant}" if entrant else ""
        last += shown(f"the exact flow{of}", flow.x, None if labels is None else labels[: len(flow.x)], flow.sizes)
    last += shown("held-out items", real, labels_of(their), held_out.sizes_of(index))
    return {heading: parts for heading, parts in found.items() if parts}
