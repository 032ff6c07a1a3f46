"""Scores: the metrics of one set of samples, and of real items in their place."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from samplers.progress import Progress
from score_sde.evaluation.features import Extracted
from score_sde.evaluation.perturbations import words
from score_sde.evaluation.power import Power
from score_sde.metrics.estimate import Estimate
from score_sde.metrics.metric import METRICS, MIN_ITEMS
from score_sde.metrics.neighbors import Memorization, near_duplicates
from score_sde.metrics.proportion import share
from score_sde.metrics.splits import Division, Splits
from sde.data.statistics import spread

NOT_TOLD = "not told from real items"
"""What is said of samples that may be real items by a metric."""

PowerOf = Callable[[Mapping[str, Splits], Division], dict[str, Power]]
"""What metrics tell of spoilt real items, given the splits of each."""

SAME_ITEMS_SHARE = 1e-3
"""A Frechet distance below this share of that of real items is no luck."""


@dataclass(frozen=True)
class Sets:
    """The ``samples``, the ``real`` items that they are held against, ``others``, real ones of the other split, both
    in the samples' mix of classes, and all items of ``training``. ``unseen``: the real ones are none of training."""

    samples: Extracted
    real: Extracted
    others: Extracted
    training: Extracted
    unseen: bool

    @property
    def division(self) -> Division:
        """The sizes at which samples and real items are compared with real items alone."""
        return Division.of(len(self.samples), len(self.real), len(self.others))


def refusals(names: Sequence[str] | None, samples: int, real: int, others: int, dimension: int) -> dict[str, str]:
    """Reasons, by name, why metrics cannot be taken of so few items with so many features. Raises ValueError where
    ``names``, keys of METRICS, ask for one of them."""
    division = Division.of(samples, real, others)
    found = {
        name: metric.shortage(division.n, division.m, dimension)
        for name, metric in METRICS.items()
        if min(division.n, division.m) < metric.items(dimension)
    }
    for name in names or ():
        if name in found:
            raise ValueError(f"--metrics={name}: {found[name]}; more --num_samples, or --features classifier")
    return found


def scores(
    sets: Sets, names: Sequence[str] | None, refused: dict[str, str], subsamples: int, seed: int, power: PowerOf
) -> dict[str, dict]:
    """Estimates by name, keys of METRICS, ``memorization`` and ``duplicates``, as plain values; {"refused": why} for
    what there are too few items for. ``power`` says what the metrics tell that do not tell the samples from real
    items. Memorization compares with real items that are unseen in training; without them
    there is none."""
    values: dict[str, dict[str, Any]] = {}
    told: dict[str, Splits] = {}
    for name in Progress(names or METRICS, desc="metrics", leave=False):
        if name in refused:
            values[name] = {"refused": refused[name]}
            continue
        values[name], splits = _score(sets, name, subsamples, seed)
        if values[name]["reading"] == NOT_TOLD:
            told[name] = splits
    for name, least in power(told, sets.division).items():
        values[name]["power"] = least
        values[name]["reading"] = with_power(least)
    _warn_of_the_same(sets, values)
    samples, held, known = (part.features for part in (sets.samples, sets.real, sets.training))
    if sets.unseen:
        copied = share(sets.samples.found_in(sets.training), len(samples))
        values["memorization"] = {"copies": asdict(copied)}
        if len(held) < MIN_ITEMS:
            why = f"{len(held)} held-out items are too few to tell how near new ones are, it needs at least {MIN_ITEMS}"
            values["memorization"]["refused"] = f"memorization: {why}"
        else:
            values["memorization"] |= asdict(Memorization.from_sets(samples, held, known, subsamples, seed))
    trained_on = sets.others if sets.unseen else sets.real
    values["duplicates"] = {"exact": asdict(share(sets.samples.repeated(), len(samples)))}
    if len(trained_on) < MIN_ITEMS:
        why = f"{len(trained_on)} training items are too few to tell how near they are to each other"
        values["duplicates"]["refused"] = f"near duplicates: {why}, it needs at least {MIN_ITEMS}"
    else:
        values["duplicates"]["near"] = asdict(near_duplicates(samples, trained_on.features, subsamples, seed))
    return values


def with_power(least: Power) -> str:
    """The words for samples that are not told from real items, where these spoilt ones would be."""
    would = words(least)
    return f"{NOT_TOLD}; it would tell {would}" if would else "says nothing: it does not tell spoilt real items either"


def _score(sets: Sets, name: str, subsamples: int, seed: int) -> tuple[dict[str, Any], Splits]:
    """The estimate of a metric, what real items have, and what that says."""
    metric, division = METRICS[name], sets.division
    samples, real, others = (part.features for part in (sets.samples, sets.real, sets.others))
    own = metric.estimate(samples, real, subsamples, seed)
    splits = Splits.measure(metric, real, others, division, least=metric.least(division.n), seed=seed)
    value = own.value
    if (division.n, division.m) != (len(samples), len(real)):
        # At the sizes that real items can stand in for.
        value = metric(samples[spread(len(samples), division.n)], real[spread(len(real), division.m)])
    reference = splits.record() | asdict(division)
    said = verdict(splits.compared(value), metric.larger)
    return {**asdict(own), "reference": reference, "reading": said}, splits


def reading(own: Estimate, real: Estimate, larger: bool) -> str:
    """How samples compare with real items in their place, as far as the intervals tell, where ``larger`` is better."""
    return verdict(own.compared(real), larger)


def verdict(difference: int, larger: bool) -> str:
    """The words for values above, below or among those of real items, where ``larger`` is better."""
    if not difference:
        return NOT_TOLD
    better = (difference > 0) == larger
    return "better than real items: copied, or less varied?" if better else "worse than real items"


def _warn_of_the_same(sets: Sets, values: dict[str, dict]) -> None:
    """Warn where the samples are the real items themselves."""
    usual = sets.others.rows(spread(len(sets.others), len(sets.samples)))
    copied, expected = (part.found_in(sets.real) / max(1, len(part)) for part in (sets.samples, usual))
    found = values.get("frechet", {})
    distance, real = (part.get("value", 1.0) for part in (found, found.get("reference", {})))
    if copied > 0.1 + 2 * expected or distance < SAME_ITEMS_SHARE * real:
        warnings.warn(
            f"{copied:.0%} of the samples equal an item that they are held against (other real ones: {expected:.0%}), "
            f"and the Frechet distance is {distance:.2g}: are these the same files?",
            stacklevel=2,
        )
