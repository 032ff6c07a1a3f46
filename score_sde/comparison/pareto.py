"""The Pareto front: which of several points are worth what they cost, given how far chance alone moves them."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import t
from torch import Tensor

JACKKNIFE_GROUPS = 16
"""Parts of the samples that are left out in turn."""


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Whether each point (cost, loss) is on the Pareto front: no other is as small in both and smaller in one."""
    return [
        not any(c <= cost and v <= loss and (c, v) != (cost, loss) for c, v in points) for cost, loss in points
    ]  # fmt: skip


def left_out(statistic: Callable[[Tensor], float], x: Tensor) -> np.ndarray:
    """The statistic of x (n, ...) without each of JACKKNIFE_GROUPS consecutive parts of its rows in turn:
    (JACKKNIFE_GROUPS,), or (n,) for fewer rows than that."""
    groups = min(JACKKNIFE_GROUPS, len(x))
    kept = np.ones(len(x), bool)
    found = []
    for part in np.array_split(np.arange(len(x)), groups):
        kept[part] = False
        found.append(statistic(x[kept]))
        kept[part] = True
    return np.array(found)


def jackknife_error(found: np.ndarray) -> float:
    """The standard error sqrt((g - 1) / g sum_j (v_j - mean)^2) of a statistic with the values v (g,) of ``left_out``
    (the delete-a-group jackknife; Shao and Tu 1995, section 2.3).

    Of a mean, with groups of one, it is the usual one. The difference of two statistics of paired samples has the error
    of the difference of their values: what moves both alike does not count.
    """
    return float(np.sqrt((len(found) - 1) / len(found) * np.square(found - found.mean()).sum()))


REACH = float(t.ppf(0.975, JACKKNIFE_GROUPS - 1))
"""Standard errors of the jackknife, with so few groups, that a 95 % interval reaches to either side."""

RULE = (
    "Tied are all that the best, by the first metric, is not told from, as the 95 % interval of the difference holds "
    "0, and what is no dearer than one of them and no worse. Of these it is the one with the fewest network calls, and "
    "of equal ones the best."
)


def tied(rows: Sequence[dict]) -> list[bool]:
    """Whether rows with ``nfe``, ``behind``, how much worse than the best they are, and ``behind_stderr`` may be the
    best, or take no more calls than one that may be, and are no worse."""
    near = [row for row in rows if row["behind"] <= REACH * row["behind_stderr"]]
    # Where little is known of a poor one, a better one beside it that is known well would be left out.
    return [any(row["nfe"] <= one["nfe"] and row["behind"] <= one["behind"] for one in near) for row in rows]


def recommend(rows: Sequence[dict]) -> int:
    """The position of the row that RULE names, on the front of calls: rows with ``nfe``, ``behind`` and ``tied``."""
    near = (i for i, row in enumerate(rows) if row["tied"])
    return min(near, key=lambda i: (rows[i]["nfe"], rows[i]["behind"]))
