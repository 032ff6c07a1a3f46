"""Names of the columns of a table of data, where its file has them."""

import csv
from pathlib import Path

from score_sde.run.folder import Run
from sde.data.arrays import LABELS
from sde.data.tables import DELIMITERS


def column_names(run: Run, shape: tuple[int, ...]) -> list[str] | None:
    """The names in the first line of the table that config.data.root names, those of labels left out; None for other
    data, and where they are not as many as an item of the shape has entries."""
    root = getattr(run.config.data, "root", None)
    path = Path(root) if root else None
    if path is None or path.suffix.lower() not in (".csv", ".tsv") or not path.is_file():
        return None
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
    cells = next(csv.reader([first], delimiter=max(DELIMITERS, key=first.count)), [])
    names = [cell.strip() for cell in cells if cell.strip().lower() not in LABELS]
    if any(_is_number(name) for name in names):
        return None
    return names if (len(names),) == shape else None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
