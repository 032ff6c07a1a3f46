"""The page of a restoration: what was said of it, the scores of each item, the picture."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from score_sde.kinds.elements import image
from score_sde.pages.frame import page, wide
from score_sde.pages.table import number
from sde.files import write_whole

HEADS = {
    "item": "Item",
    "psnr": "PSNR of the samples, dB",
    "psnr_mean": "of their mean, dB",
    "crps": "CRPS, data units",
    "coverage": "Covered",
}
"""What the columns of scores are called."""


def write_restoration(
    path: Path, said: Sequence[str], notes: Sequence[str], rows: Sequence[dict], picture: Path | None
) -> Path:
    """Write the page, whole or not at all: the lines ``said`` of a restoration, the ``notes`` that warn, the scores of
    each item as ``rows``, and the file of its picture."""
    first = next((i for i, line in enumerate(said) if line.split()[:1] == ["item"]), len(said))
    write_whole(path, page(f"Restored: {path.stem}", _sections(path.stem, said[:first], notes, rows, picture)))
    return path


def _sections(
    name: str, said: Sequence[str], notes: Sequence[str], rows: Sequence[dict], picture: Path | None
) -> Iterator[str]:
    yield f"<h1>{escape(name)}</h1>"
    yield from (f"<p>{escape(line.strip())}</p>" for line in said)
    yield from (f"<p><strong>{escape(note)}</strong></p>" for note in notes)
    if picture is not None:
        yield f"<h2>Items</h2>\n<figure>{image('png', picture.read_bytes(), 'what was measured, and samples')}</figure>"
    if rows:
        heads = [key for key, value in rows[0].items() if value is not None]
        yield "<h2>Scores per item</h2>"
        yield wide(_table(heads, rows), "scores per item")


def _table(heads: Sequence[str], rows: Sequence[dict]) -> str:
    titles = "".join(f'<th scope="col">{escape(HEADS.get(head, head))}</th>' for head in heads)
    lines = [f"<thead><tr>{titles}</tr></thead>\n<tbody>"]
    for row in rows:
        cells = "".join(f"<td>{row[head] if head == 'item' else number(row[head])}</td>" for head in heads)
        lines.append(f"<tr>{cells}</tr>")
    return "<table>\n" + "\n".join(lines) + "\n</tbody></table>"
