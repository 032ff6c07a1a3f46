"""The ranking that a comparison found: a row for each sampler and budget, with what chance alone explains."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from score_sde.comparison.candidates import Candidate
from score_sde.comparison.pareto import front, jackknife_error, left_out, recommend, tied
from score_sde.comparison.reference import Reference
from score_sde.comparison.sampling import Drawn, flow_error
from score_sde.metrics.metric import METRICS
from score_sde.pages.table import number, real_items, with_error
from sde.data import Dataset

FRONTS = {"nfe": ("nfe", "behind"), "seconds": ("seconds", "behind"), "error": ("nfe", "error")}
"""The Pareto fronts that rows are marked by, as front_NAME, and the cost and the loss of each."""


MANY = 8
"""Rows, at most, that a sentence names."""


def tabulate(
    ran: Sequence[tuple[Candidate, Drawn]],
    reference: Reference,
    exact: Mapping[str, Tensor],
    training: Dataset,
    commands: Mapping[str, str],
) -> list[dict]:
    """A row for each candidate and what it drew, by calls and the first metric of the reference, which ranks them.

    ``metrics`` has by name the ``value`` with the jackknife's ``stderr``; ``behind``, how much worse than the best it
    is, with the error of that difference, ``behind_stderr``; and ``reading``, how it compares with real items. Those of
    the first metric stand in the row itself as well. ``tied`` are those that may be the best by it.
    ``error`` is that of a deterministic candidate's first samples against ``exact`` (m, *event) of the run whose flow
    it follows, in standard deviations of the data; then come the fronts; whether it is ``recommended``; ``command``,
    its flags behind that of its run. ``title`` names the sampler, and its run where there are several.
    """
    features = [reference.features(found.x) for _, found in ran]
    measured = {name: _measured(name, reference, features) for name in reference.metrics}
    rows: list[dict] = []
    for i, (candidate, found) in enumerate(ran):
        flow = exact.get(candidate.flow) if candidate.deterministic and candidate.flow is not None else None
        own = {name: values[i] for name, values in measured.items()}
        rows.append(
            {
                "title": candidate.title,
                "run": candidate.entrant or None,
                "sampler": candidate.name,
                "steps": len(candidate.times) - 1 if candidate.budget else None,
                "tolerance": candidate.tolerance,
                "budget": candidate.budget,
                "nfe": found.nfe.mean().item(),
                "seconds": found.seconds,
                **own[reference.metrics[0]],
                "metrics": own,
                "error": None if flow is None else flow_error(found.values[: len(flow)], flow, training, found.latent),
                "command": f"{commands[candidate.entrant]} {candidate.flags}",
            }
        )
    for name, (cost, loss) in FRONTS.items():
        among = [row for row in rows if row[loss] is not None]
        marks = iter(front([(row[cost], row[loss]) for row in among]))
        for row in rows:
            row[f"front_{name}"] = row[loss] is not None and next(marks)
    for row, tie in zip(rows, tied(rows), strict=True):
        row["tied"] = tie
    chosen = recommend(rows)
    for i, row in enumerate(rows):
        row["recommended"] = i == chosen
    return sorted(rows, key=lambda row: (row["nfe"], row["behind"]))


def _measured(name: str, reference: Reference, features: Sequence[Tensor]) -> list[dict[str, Any]]:
    """For each candidate's features."""

    def measure(own: Tensor) -> float:
        return reference.measure(name, own)

    values, without = [measure(own) for own in features], [left_out(measure, own) for own in features]
    sign = -1 if METRICS[name].larger else 1
    best = min(range(len(values)), key=lambda i: sign * values[i])
    return [
        {
            "value": value,
            "stderr": jackknife_error(parts),
            "behind": sign * (value - values[best]),
            "behind_stderr": jackknife_error(parts - without[best]),
            "reading": reference.reading(name, own),
        }
        for value, parts, own in zip(values, without, features, strict=True)
    ]


def named(rows: Sequence[dict]) -> str:
    """The first of the rows by sampler and calls, as in a sentence."""
    names = [f"{row['title']} at {row['nfe']:.4g}" for row in rows[:MANY]]
    more = f", and {len(rows) - MANY} more" if len(rows) > MANY else ""
    return f"{', '.join(names)} calls{more}"


def show(record: dict) -> None:
    """Print a comparison: a line per row, and the command to take."""
    first, *others = record["metrics"]
    against = f"{record['items']} {record['against']} items"
    print(
        f"{record['num_samples']} samples each from the same noise against {against}; "
        f"{real_items(record)}: {', '.join(_of_real(record, name) for name in (first, *others))}"
    )
    heads = [f"{name + ' +- stderr':<21}" for name in (first, *others)]
    width = max(12, *(len(row["title"]) for row in record["rows"]))
    print(f"  {'sampler':<{width}} steps   calls  ms/sample  {'  '.join(heads)}  error to the flow")
    for row in record["rows"]:
        mark = "*" if row["recommended"] else "=" if row["tied"] else "|" if row["front_nfe"] else " "
        steps = row["steps"] or f"{row['tolerance']:g}"
        texts = (with_error(own["value"], own["stderr"]).replace("±", "+-") for own in row["metrics"].values())
        values = "  ".join(f"{text:<{len(head)}}" for text, head in zip(texts, heads, strict=True))
        error = "" if row["error"] is None else number(row["error"])
        cost = f"{row['nfe']:>7.4g} {1000 * row['seconds']:>10.3g}"
        print(f"{mark} {row['title']:<{width}} {steps:>5} {cost}  {values}  {error}".rstrip())
    for note in record["notes"]:
        print(f"  {note}")
    chosen = next(row for row in record["rows"] if row["recommended"])
    ties = [row for row in record["rows"] if row["tied"]]
    if len(ties) > 1:
        print(f"= tied with the best by {first}: {named(ties)}")
    print(f"* by {first} {chosen['reading']}")
    print(f"| on the front of calls and {first}, * recommended:\n  {chosen['command']}")


def _of_real(record: dict, name: str) -> str:
    real = record["real"][name]
    return f"{METRICS[name].title} {number(real['value'])} +- {number(real['spread'])}"
