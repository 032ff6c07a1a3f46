"""Scores: the metrics of one set of samples, and of real items in their place."""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from samplers.progress import Progress
from score_sde.evaluation.features import Extracted
from score_sde.metrics.estimate import Estimate
from score_sde.metrics.metric import METRICS
from score_sde.metrics.neighbors import Memorization, near_duplicates
from score_sde.metrics.proportion import share

SAME_ITEMS_SHARE = 1e-3
"""A Frechet distance below this share of that of real items is no luck."""


@dataclass(frozen=True)
class Sets:
    """The ``samples``, the ``real`` items that they are held against, as many other real items, the ``reference``, and
    all items of ``training``."""

    samples: Extracted
    real: Extracted
    reference: Extracted
    training: Extracted


def refusals(names: Sequence[str] | None, samples: int, real: int, dimension: int) -> dict[str, str]:
    """Reasons, by name, why metrics cannot be taken of so few items with so many features. Raises ValueError where
    ``names``, keys of METRICS, ask for one of them."""
    found = {
        name: metric.shortage(samples, real, dimension)
        for name, metric in METRICS.items()
        if min(samples, real) < metric.items(dimension)
    }
    for name in names or ():
        if name in found:
            raise ValueError(f"--metrics={name}: {found[name]}; more --num_samples, or --features classifier")
    return found


def scores(
    sets: Sets, names: Sequence[str] | None, refused: dict[str, str], resamples: int, seed: int, unseen: bool
) -> dict[str, dict]:
    """Estimates by name, keys of METRICS, ``memorization`` and ``duplicates``, as plain values; {"refused": why} for
    those of ``refusals``. Memorization compares with real items that are ``unseen`` in training; without them there is
    none."""
    values: dict[str, dict[str, Any]] = {}
    for name in Progress(names or METRICS, desc="metrics", leave=False):
        if name in refused:
            values[name] = {"refused": refused[name]}
            continue
        own, real = (
            METRICS[name].estimate(part.features, sets.real.features, resamples, seed)
            for part in (sets.samples, sets.reference)
        )
        verdict = reading(own, real, METRICS[name].larger)
        values[name] = {**asdict(own), "reference": asdict(real), "reading": verdict}
    _warn_of_the_same(sets, values)
    samples, held, known = (part.features for part in (sets.samples, sets.real, sets.training))
    if unseen:
        copied = share(sets.samples.found_in(sets.training), len(samples))
        values["memorization"] = asdict(Memorization.from_sets(samples, held, known, resamples, seed)) | {
            "copies": asdict(copied)
        }
    near, exact = near_duplicates(samples, known, resamples, seed), share(sets.samples.repeated(), len(samples))
    values["duplicates"] = {"near": asdict(near), "exact": asdict(exact)}
    return values


def reading(own: Estimate, real: Estimate, larger: bool) -> str:
    """How samples compare with real items in their place, as far as the intervals tell, where ``larger`` is better."""
    difference = own.compared(real)
    if not difference:
        return "not told from real items"
    better = (difference > 0) == larger
    return "better than real items: copied, or less varied?" if better else "worse than real items"


def _warn_of_the_same(sets: Sets, values: dict[str, dict]) -> None:
    """Warn where the samples are the real items themselves."""
    copied, usual = (part.found_in(sets.real) / len(part) for part in (sets.samples, sets.reference))
    found = values.get("frechet", {})
    distance, real = (part.get("value", 1.0) for part in (found, found.get("reference", {})))
    if copied > 0.1 + 2 * usual or distance < SAME_ITEMS_SHARE * real:
        warnings.warn(
            f"{copied:.0%} of the samples equal an item that they are held against (other real ones: {usual:.0%}), and "
            f"the Frechet distance is {distance:.2g}: are these the same files?",
            stacklevel=2,
        )
