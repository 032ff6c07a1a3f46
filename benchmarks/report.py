"""The report of a benchmark of a device: tables for people."""

from collections.abc import Iterable
from typing import Any

from benchmarks.sections import Check, Result


def written(value: Any) -> str:
    """A value of a table: numbers with three digits that count."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Rows as a table in Markdown, its columns aligned for the terminal; what a row does not have stays empty, and what
    none has is left out."""
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key, value in row.items() if value is not None))
    cells = [columns, *([written(row.get(column)) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numbers = [all(isinstance(row.get(c), int | float | None) for row in rows) for c in columns]

    def line(row: list[str]) -> str:
        parts = (
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, numbers, strict=True)
        )
        return f"| {' | '.join(parts)} |"

    rule = (f"{'-' * (width - 1)}{':' if number else '-'}" for width, number in zip(widths, numbers, strict=True))
    return "\n".join([line(cells[0]), f"| {' | '.join(rule)} |", *map(line, cells[1:])])


def condensed(checks: list[Check]) -> Iterable[dict[str, Any]]:
    """A line for each group of checks: the one that comes nearest to what is allowed, or goes furthest beyond it."""
    groups = dict.fromkeys(check.group for check in checks)
    for group in groups:
        own = [check for check in checks if check.group == group]
        # What is not a number is the worst.
        worst = max(own, key=lambda check: (not check.passed, check.error / check.allowed if check.allowed else 0))
        yield {
            "of": group,
            "checks": len(own),
            "the worst": worst.what,
            "error": f"{worst.error:.1e}",
            "allowed": f"{worst.allowed:.1e}",
            "": "right" if all(check.passed for check in own) else "WRONG",
        }


def shown(result: Result) -> str:
    """A section's table, with a line above that says what it is."""
    checks = [row for row in result.rows if isinstance(row, Check)]
    figures = [row for row in result.rows if isinstance(row, dict)]
    parts = [f"\n{result.name}: {result.title} ({result.seconds:.1f} s)"]
    parts += [table(rows) for rows in (list(condensed(checks)), figures) if rows]
    parts += [row for row in result.rows if isinstance(row, str)]
    if result.outcome != "passed":
        parts.append(f"{result.outcome.upper()}: {result.sentence}")
    return "\n".join(parts)


def summary(results: list[Result]) -> str:
    """What passed, and every section that did not, with its reason."""
    lines = [f"{sum(result.outcome == 'passed' for result in results)} of {len(results)} sections passed"]
    lines += [f"  {r.name}: {r.outcome}: {r.sentence}" for r in results if r.outcome != "passed"]
    return "\n".join(lines)
