"""What a comparison found: a row for each sampler and budget, with what chance alone explains."""

from collections.abc import Sequence

from torch import Tensor

from commands.comparing.entrants import Entrant
from commands.comparing.pareto import front, jackknife_error, left_out, recommend
from commands.comparing.race import Drawn, flow_error
from commands.comparing.yardstick import Yardstick
from sde.data import Dataset

FRONTS = {"calls": ("calls", "distance"), "seconds": ("seconds", "distance"), "error": ("calls", "error")}
"""The Pareto fronts that rows are marked by, as front_NAME, and the cost and the loss of each."""


def tabulate(
    ran: Sequence[tuple[Entrant, Drawn]], yardstick: Yardstick, exact: Tensor | None, training: Dataset, common: str
) -> list[dict]:
    """A row for each entrant and what it drew, by calls and distance.

    ``distance`` with the jackknife's ``stderr``; ``behind``, what it has more than the smallest distance, with that of
    the difference, ``behind_stderr``; ``error``, of a deterministic entrant's first samples against ``exact`` (m,
    *event), in standard deviations of the data; the fronts; whether it is ``recommended``; ``command``, its flags
    behind ``common``.
    """
    features = [yardstick.features(found.x) for _, found in ran]
    distances = [yardstick.distance(own) for own in features]
    without = [left_out(yardstick.distance, own) for own in features]
    best = min(range(len(ran)), key=distances.__getitem__)
    rows = []
    for (entrant, found), distance, parts in zip(ran, distances, without, strict=True):
        solved = entrant.deterministic and exact is not None
        rows.append(
            {
                "sampler": entrant.name,
                "steps": len(entrant.times) - 1 if entrant.budget else None,
                "tolerance": entrant.tolerance,
                "budget": entrant.budget,
                "calls": found.calls.mean().item(),
                "seconds": found.seconds,
                "distance": distance,
                "stderr": jackknife_error(parts),
                "behind": distance - distances[best],
                "behind_stderr": jackknife_error(parts - without[best]),
                "error": flow_error(found.values[: len(exact)], exact, training) if solved else None,
                "command": f"{common} {entrant.flags}",
            }
        )
    for name, (cost, loss) in FRONTS.items():
        among = [row for row in rows if row[loss] is not None]
        marks = iter(front([(row[cost], row[loss]) for row in among]))
        for row in rows:
            row[f"front_{name}"] = row[loss] is not None and next(marks)
    chosen = recommend(rows)
    for i, row in enumerate(rows):
        row["recommended"] = i == chosen
    return sorted(rows, key=lambda row: (row["calls"], row["distance"]))
