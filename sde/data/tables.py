"""Tables of numbers in text files: one row per item, one column per dimension."""

import csv
from array import array
from pathlib import Path

import numpy as np

DELIMITERS = ",;\t"


def read_table(path: Path, label_names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray | None]:
    """Values (n, D) float64, and the column of integers (n,) whose name is one of ``label_names``, where there is one.

    The first line may name the columns: it does where none of its cells is a number. Cells are separated by what the
    first line has most of, comma, semicolon or tab. Raises ValueError that names line and column for anything else.
    """
    values, labels, label_at = array("d"), array("q"), None
    names: list[str] = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            rows = csv.reader(file, delimiter=max(DELIMITERS, key=first.count), strict=True)
            for row in filter(None, rows):
                if not names and not any(map(_is_number, row)):
                    names = [cell.strip() for cell in row]
                    label_at = _only([i for i, name in enumerate(names) if name.lower() in label_names])
                    continue
                names = names or [str(i) for i in range(1, len(row) + 1)]
                if len(row) != len(names):
                    raise ValueError(f"line {rows.line_num} has {len(row)} cells, not {len(names)} like the first")
                for i, cell in enumerate(row):
                    column: array = labels if i == label_at else values
                    try:
                        column.append(int(cell) if i == label_at else float(cell))
                    except ValueError:
                        kind = "an integer" if i == label_at else "a number"
                        raise ValueError(f"line {rows.line_num}, column {names[i]}: {cell!r} is not {kind}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text in UTF-8: save it as that") from None
    except (ValueError, OSError, csv.Error, OverflowError) as error:
        raise ValueError(f"{path} is not a table of numbers ({error})") from None
    width = len(names) - (label_at is not None)
    if not values:
        raise ValueError(f"{path} holds no numbers: needs a row per item")
    return np.asarray(values).reshape(-1, width), None if label_at is None else np.asarray(labels)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _only(columns: list[int]) -> int | None:
    if len(columns) > 1:
        raise ValueError(f"{len(columns)} columns are named as labels: keep one")
    return columns[0] if columns else None
