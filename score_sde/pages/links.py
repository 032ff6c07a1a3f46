"""Links of a run's page to what else there is of the run: comparisons, evaluations, sweeps, restorations."""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from urllib.parse import quote

from sde.files import write_whole

BEGIN, END = "<!-- pages -->", "<!-- end of pages -->"
"""What the links are between, so that they can be written anew."""
FOUND = {
    "Comparison of samplers": ("compare*/**/*.html", "compare*.html"),
    "Evaluation": ("evaluation*.html", "evaluation*.json", "evaluation*/**/*.html", "evaluation*/**/*.json"),
    "Guidance sweep": ("samples/*guidance-sweep*.png",),
    "Restoration": ("samples/*-restore*.html",),
}
"""Where the files of each kind are, in a run folder."""
MOST = 8
"""Files of a kind at most, the newest."""


def links(folder: Path) -> str:
    """The section with links to the files, relative to the run folder; with no files its marks alone."""
    lines = [line for name, patterns in FOUND.items() for line in _of(folder, name, patterns)]
    listed = ["<h2>Pages of this run</h2>", "<ul>", *lines, "</ul>"] if lines else []
    return "\n".join([BEGIN, *listed, END])


def _of(folder: Path, name: str, patterns: Sequence[str]) -> Iterator[str]:
    found = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    for file in sorted(found, key=lambda file: (file.stat().st_mtime, file.name), reverse=True)[:MOST]:
        place = file.relative_to(folder).as_posix()
        when = datetime.fromtimestamp(file.stat().st_mtime).astimezone()
        yield (
            f'<li>{name}: <a href="{escape(quote(place))}">{escape(place)}</a> '
            f'<span class="faint">{when:%Y-%m-%d %H:%M}</span></li>'
        )


def renew_links(folder: Path) -> None:
    """Write the links in the run's page anew, where it has a page with a place for them and they are others now."""
    path = folder / "report.html"
    if not path.is_file():
        return
    old = path.read_bytes().decode()
    new = re.sub(f"{BEGIN}.*?{END}", lambda _: links(folder), old, count=1, flags=re.DOTALL)
    if new != old:
        write_whole(path, new.encode())
