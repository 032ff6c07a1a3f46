"""Tables of numbers in text files: one row per item, one column per dimension."""

import csv
import warnings
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from sde.data.cells import Numbers, delimiter_of, is_header, is_index, is_number, kind_of_text

LOOKED_AT = 200
"""Rows by which it is told what the first line, and each column, holds."""

INDEX_NAMES = ("", "unnamed: 0", "index", "id", "row", "row_id", "rowid")
"""Names of a column that numbers the rows."""


class Table(NamedTuple):
    """``values`` (n, D) float64, NaN where a cell is empty; ``labels`` (n,), numbers or texts, or None; the names of
    the ``columns``, none where no line has them; and what is ``missing``, in words."""

    values: np.ndarray
    labels: np.ndarray | None
    columns: tuple[str, ...]
    missing: str


def read_table(path: Path, label_names: tuple[str, ...], columns: Sequence[str] = (), width: int = 0) -> Table:
    """The table of a text file; the column whose name is one of ``label_names`` holds the classes of the rows.

    Cells are separated by commas, semicolons or tabs, and the last two go with decimal commas as well. The first line
    may name the columns. Of those, ``columns`` are taken, or all but one that only numbers the rows; what is guessed
    is warned of. ``width`` says how many there must be, where that is known: then ``columns`` counts only where there
    are names. Raises ValueError that names line and column for anything else.
    """
    try:
        with _opened(path) as file:
            table = _read(path, file, label_names, columns, width)
    except LookupError as error:
        raise ValueError(f"{path}: {error}") from None
    except (ValueError, OSError, csv.Error, OverflowError) as error:
        raise ValueError(f"{path} is not a table of numbers ({error})") from None
    if not table.values.size:
        raise ValueError(f"{path} holds no numbers: needs a row per item")
    return table


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """The file as text in the encoding that its first bytes say, or else UTF-8."""
    with open(path, "rb") as file:
        start = file.read(2)
    try:
        encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        with open(path, newline="", encoding=encoding) as text:
            yield text
    except UnicodeError as error:
        raise ValueError(f"{error}: save it as UTF-8") from None


def _read(path: Path, file: TextIO, label_names: tuple[str, ...], columns: Sequence[str], width: int) -> Table:
    head = [line for line in islice(file, LOOKED_AT) if line.strip()]
    file.seek(0)
    delimiter = delimiter_of(head)
    lines = csv.reader(file, delimiter=delimiter, strict=True)
    rows = filter(any_text, lines)
    first, comment = next(rows, []), []
    while first and first[0].startswith("#"):
        comment, first = [first[0].lstrip("# "), *first[1:]], next(rows, [])
    seen: list[tuple[int, list[str]]] = [(lines.line_num, first)] if first else []
    seen += [(lines.line_num, row) for row in islice(rows, LOOKED_AT)]
    names = [cell.strip() for cell in comment] if len(comment) == len(first) else []
    if not names and is_header([row for _, row in seen], label_names):
        names, seen = [cell.strip() for cell in first], seen[1:]
        if any(map(is_number, first)):
            warnings.warn(
                f"{path}: the first line, {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}, is taken for the "
                "names of the columns; if it is a row, put a line of names in front of it",
                stacklevel=2,
            )
    labels_at, taken = _choose(names, len(first), label_names, columns, width)
    numbers = Numbers([names[i] if names else str(i + 1) for i in taken], delimiter != ",")
    labels = Labels(names[labels_at] if labels_at is not None else "")
    for line, row in chain(seen, ((lines.line_num, row) for row in rows)):
        if len(row) != len(first):
            raise ValueError(f"line {line} has {len(row)} cells, not {len(first)} like the first")
        try:
            numbers.add(line, [row[i] for i in taken])
        except ValueError as error:
            raise ValueError(f"{error}{_remedy(error, seen, taken, numbers.names)}") from None
        if labels_at is not None:
            labels.add(line, row[labels_at])
    values = numbers.values()
    if not values.size:
        return Table(values, None, (), "")
    kept = _without_index(path, values, [names[i] for i in taken] if names else [], columns, width)
    found = tuple(names[taken[i]] for i in kept) if names else ()
    return Table(values[:, kept], None if labels_at is None else labels.values(), found, numbers.missing(kept))


def any_text(row: list[str]) -> bool:
    """Whether a row is more than an empty line."""
    return len(row) > 1 or any(cell.strip() for cell in row)


def _choose(
    names: list[str], count: int, label_names: tuple[str, ...], columns: Sequence[str], width: int
) -> tuple[int | None, list[int]]:
    """The position of the labels, or None, and those of the columns to take."""
    labels = [i for i, name in enumerate(names) if name.lower() in label_names]
    if len(labels) > 1:
        raise ValueError(f"{len(labels)} columns are named as labels: keep one")
    others = [i for i in range(count) if i not in labels]
    if columns and (names or not width):
        here = names or [str(i + 1) for i in range(count)]
        absent = [name for name in columns if name not in here]
        if absent:
            wanted = "" if width else "`columns`: "
            raise LookupError(f"{wanted}there is no column {absent[0]}: there are {', '.join(here)}")
        twice = [name for name in columns if here.count(name) > 1]
        if twice:
            raise ValueError(f"{here.count(twice[0])} columns are named {twice[0]}: give them different names")
        others = [here.index(name) for name in columns]
    return (labels[0] if labels else None), others


def _without_index(path: Path, values: np.ndarray, names: list[str], columns: Sequence[str], width: int) -> list[int]:
    """The positions of the columns less one that only numbers the rows, where none was asked for."""
    count = values.shape[1]
    kept = list(range(count))
    if count < 2 or (width and count != width + 1) or (columns and (names or not width)):
        return kept
    named = [i for i, name in enumerate(names) if name.lower() in INDEX_NAMES and is_index(values[:, i], False)]
    in_order = is_index(values[:, 0], True) and (width or len(values) > 2)
    found = named[0] if named else 0 if in_order else None
    if found is None:
        return kept
    own = names or [str(i + 1) for i in kept]
    name = f"column {own[found]}" if own[found] else "the column without a name"
    keep = "" if width else f"; to keep it, set `columns` to {','.join(own)}" if own[found] else "; to keep it, name it"
    warnings.warn(f"{path}: {name} is left out, as it only numbers the rows{keep}", stacklevel=2)
    return [i for i in kept if i != found]


def _remedy(error: ValueError, seen: list[tuple[int, list[str]]], taken: list[int], names: list[str]) -> str:
    """What to do about a column that holds no numbers at all."""
    cells = {name: [row[i] for _, row in seen if i < len(row)] for i, name in zip(taken, names, strict=True)}
    name = next((name for name in names if f", column {name}: " in str(error)), "")
    if not name or any(map(is_number, cells[name])):
        return ""
    others = [other for other in names if any(map(is_number, cells[other]))]
    what = kind_of_text(cells[name])
    leave = f"to leave it out, set `columns` to {','.join(others)}" if others else "needs columns of numbers"
    return f"; the column holds {what}: {leave}" + ("; to make classes of it, name it label" * (what == "text"))


class Labels:
    """The column of classes: whole numbers, or names."""

    def __init__(self, name: str) -> None:
        self.name, self.numbers = name, array("d")
        self.texts: list[str] = []

    def add(self, line: int, cell: str) -> None:
        """One more. Raises ValueError for an empty cell, a fraction, and one that is not like those before."""
        cell, number = cell.strip(), is_number(cell)
        if not cell or (number and not float(cell).is_integer()) or (self.numbers if not number else self.texts):
            wanted = "a name like those before" if self.texts else "an integer"
            raise ValueError(f"line {line}, column {self.name}: {cell!r} is not {wanted}")
        if number:
            self.numbers.append(float(cell))
        else:
            self.texts.append(cell)

    def values(self) -> np.ndarray:
        """All of them (n,), int64 or texts."""
        return np.array(self.texts) if self.texts else np.asarray(self.numbers).astype(np.int64)
