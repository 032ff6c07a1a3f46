"""Rows of numbers in a .csv, a line for each item."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from sde.files import write_whole


def write_rows(path: Path, rows: Sequence[dict]) -> Path:
    """Write a .csv of dicts of the same keys, whole or not at all."""
    text = io.StringIO()
    table = csv.DictWriter(text, rows[0], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_whole(path, text.getvalue().encode())
    return path
