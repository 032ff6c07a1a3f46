"""The table of a comparison: a row per sampler and budget, with buttons that sort where the page's script runs."""

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import NamedTuple

from score_sde.metrics.metric import METRICS
from score_sde.pages.charts import capitalized
from score_sde.pages.frame import wide


def number(value: float) -> str:
    """The value as text, to three digits."""
    return f"{value:.3g}"


def with_error(value: float, error: float) -> str:
    """A value and its standard error, to two digits of the error."""
    if not 0 < error < math.inf:
        return number(value)
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


class Column(NamedTuple):
    """A column of the table: its head, the key of a row that it is sorted by, "" for none, and what its cells say."""

    head: str
    key: str
    text: Callable[[dict], str]


def columns(names: Sequence[str]) -> tuple[Column, ...]:
    """Those of a comparison by metrics of these names, the first of which ranks."""
    first, *others = names
    behind = "Below the largest" if METRICS[first].larger else "Above the smallest"
    return (
        Column("Sampler", "title", lambda row: escape(row["title"])),
        Column("Steps", "steps", lambda row: str(row["steps"] or f"to {row['tolerance']:g}")),
        Column("Calls", "nfe", lambda row: f"{row['nfe']:.4g}"),
        Column("ms per sample", "seconds", lambda row: number(1000 * row["seconds"])),
        Column(capitalized(METRICS[first].title), "value", lambda row: with_error(row["value"], row["stderr"])),
        Column(behind, "behind", lambda row: with_error(row["behind"], row["behind_stderr"])),
        *(_further(name) for name in others),
        Column("Error to the flow", "error", lambda row: "" if row["error"] is None else number(row["error"])),
        Column("On the front of", "", lambda row: ", ".join(fronts(row))),
    )


def _further(name: str) -> Column:
    def text(row: dict) -> str:
        return with_error(row["metrics"][name]["value"], row["metrics"][name]["stderr"])

    return Column(capitalized(METRICS[name].title), name, text)


def fronts(row: dict) -> list[str]:
    """The names of the fronts that a row is on, in words."""
    names = [key.removeprefix("front_") for key, on in row.items() if key.startswith("front_") and on]
    return ["calls" if name == "nfe" else name for name in names]


def table(record: dict) -> Iterator[str]:
    """The rows of a comparison as lines of HTML, and the sentences to know below them."""
    shown = columns(record["metrics"])
    heads = (f'<th scope="col"{" data-sort" * bool(column.key)}>{column.head}</th>' for column in shown)
    lines = [f"<table>\n<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>"]
    for row in record["rows"]:
        cells = (f'<td data-value="{escape(_value(row, column))}">{column.text(row)}</td>' for column in shown)
        mark = ' class="chosen"' if row["recommended"] else ""
        lines.append(f"<tr{mark}>{''.join(cells)}</tr>")
    yield "<h2>All of them</h2>"
    yield wide("\n".join([*lines, "</tbody>\n</table>"]), "all samplers", f"{len(shown)} columns: scroll sideways →")
    yield from (f"<p>{escape(note)}</p>" for note in record["notes"])


def _value(row: dict, column: Column) -> str:
    value = row["metrics"][column.key]["value"] if column.key in row["metrics"] else row.get(column.key)
    return "" if value is None else str(value)


def real_items(record: dict) -> str:
    """What stands in the samples' place, as many where there are enough of them."""
    n, m = record["division"]
    if (n, m) == (record["num_samples"], record["items"]):
        return "as many real items"
    return f"{n} real items in their place against {m} others"
