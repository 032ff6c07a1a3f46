"""Cells of tables: what separates them, what they hold, and their numbers."""

import csv
import re
from array import array
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

DELIMITERS = "\t;,"
"""In the order in which they are tried: a comma may stand within numbers."""

MISSING = ("", "na", "n/a", "nan", "null", "none", "-", "?", "<na>")
"""Cells, in lower case, without a value."""

DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?")
DATE = re.compile(r"[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}([T ].*)?|[0-9]{1,2}:[0-9]{2}(:[0-9.]+)?")
BARE = re.compile(r"[+-]?[0-9]+")


def delimiter_of(lines: Sequence[str]) -> str:
    """What separates cells: what makes as many of each line, and more than one; else what the first line has most."""
    for delimiter in DELIMITERS:
        try:
            counts = {len(row) for row in csv.reader(lines, delimiter=delimiter) if row}
        except csv.Error:
            continue
        if len(counts) == 1 and counts.pop() > 1:
            return delimiter
    first = lines[0] if lines else ""
    return max(",;\t", key=first.count)


def is_number(cell: str) -> bool:
    """Whether a cell holds a number, with a decimal point or comma; NaN is none."""
    text = cell.strip()
    if DECIMAL_COMMA.fullmatch(text):
        return True
    try:
        return float(text) == float(text) and "_" not in text
    except ValueError:
        return False


def is_missing(cell: str) -> bool:
    """Whether a cell has no value."""
    return cell.strip().lower() in MISSING


def kind_of_text(cells: Sequence[str]) -> str:
    """What cells that are no numbers are."""
    return "dates" if any(DATE.fullmatch(cell.strip()) for cell in cells) else "text"


def is_header(rows: Sequence[Sequence[str]], label_names: Sequence[str] = ()) -> bool:
    """Whether the first of the rows names the columns: it does where none of its cells is a number, or one is a name of
    labels, or text over a column of numbers. A line of numbers alone does where they go up by one, as years or as the
    numbers of the columns do, and the rows below are of another kind."""
    if not rows:
        return False
    first, below = [cell.strip() for cell in rows[0]], rows[1:]
    if any(cell.lower() in label_names for cell in first):
        return True
    if not any(map(is_number, first)):
        return not all(map(is_missing, first))
    columns = [[row[i] for row in below if i < len(row)] for i in range(len(first))]
    names = [i for i, cell in enumerate(first) if not is_number(cell) and not is_missing(cell)]
    if names:
        whole = all(BARE.fullmatch(cell) for i, cell in enumerate(first) if i not in names)
        words = all(any(map(str.isalpha, first[i])) for i in names)
        return whole and words and any(any(map(is_number, columns[i])) for i in names)
    # A column without a name in front is what pandas writes as the index.
    start = 1 if not first[0] and columns[0] and all(map(is_number, columns[0])) else 0
    cells = first[start:]
    if len(cells) < 2 or not _consecutive(cells) or any(_consecutive(row[start:]) for row in below):
        return False
    if start:
        return True
    years = all(1800 <= int(cell) <= 2200 for cell in cells)
    fractions = len(below) > 2 and not any(BARE.fullmatch(cell.strip()) for column in columns for cell in column)
    numbered = len(cells) > 4 and int(cells[0]) in (0, 1)
    others = [float(cell) for column in columns for cell in column if is_number(cell) and "," not in cell]
    return fractions or (len(below) > 2 and (numbered or (years and not any(1800 <= x <= 2200 for x in others))))


def _consecutive(cells: Sequence[str]) -> bool:
    if not all(BARE.fullmatch(cell.strip()) for cell in cells):
        return False
    numbers = [int(cell) for cell in cells]
    return all(b - a == 1 for a, b in pairwise(numbers))


def is_index(values: np.ndarray, in_order: bool) -> bool:
    """Whether values (n,) only number the rows: from 0 or 1 on where they are ``in_order``, or else a whole number for
    each."""
    if in_order:
        return values[0] in (0, 1) and bool((np.diff(values) == 1).all())
    return bool((values == np.round(values)).all()) and len(np.unique(values)) == len(values)


class Numbers:
    """The cells of all rows as numbers, NaN where one is missing; with a ``comma`` for the decimal point too."""

    def __init__(self, names: Sequence[str], comma: bool) -> None:
        self.names, self.comma = list(names), comma
        self._values, self._lines = array("d"), array("q")
        self._point = self._decimal = ""

    def add(self, line: int, cells: Sequence[str]) -> None:
        """One more row. Raises ValueError that names line and column for a cell that is no number."""
        self._lines.append(line)
        for name, cell in zip(self.names, cells, strict=True):
            try:
                if "_" in cell:
                    raise ValueError
                self._values.append(float(cell))
            except ValueError:
                self._values.append(self._slowly(f"line {line}, column {name}", cell.strip()))
            else:
                if self.comma and not self._point and "." in cell:
                    self._point = cell.strip()
        if self._point and self._decimal:
            raise ValueError(
                f"{self._point} has a decimal point and {self._decimal} a decimal comma: write all numbers alike"
            )

    def _slowly(self, place: str, cell: str) -> float:
        if is_missing(cell):
            return float("nan")
        if self.comma and DECIMAL_COMMA.fullmatch(cell):
            self._decimal = self._decimal or cell
            return float(cell.replace(",", "."))
        raise ValueError(f"{place}: {cell!r} is not a number")

    def values(self) -> np.ndarray:
        """All of them (n, D), float64."""
        return np.asarray(self._values).reshape(-1, max(1, len(self.names)))

    def missing(self, kept: Sequence[int]) -> str:
        """What is missing in the columns at these positions, in words; "" for nothing."""
        holes = np.argwhere(np.isnan(self.values()[:, kept]))
        if not len(holes):
            return ""
        row, column = holes[0]
        count = f" ({len(holes)} cells are)" if len(holes) > 1 else ""
        return (
            f"line {self._lines[row]}, column {self.names[kept[column]]} holds no number{count}: fill the gap, or "
            "remove the row"
        )
