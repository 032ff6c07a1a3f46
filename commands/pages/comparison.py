"""The page of a comparison of samplers."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

from commands.pages.charts import CHARTS, beyond, chart_svg
from commands.pages.frame import image, page

STYLE = """
svg { display: block; width: 100%; height: auto; }
.advice { font-size: 1.1rem; color: var(--ink); } .copy code { user-select: all; }
button { font: inherit; font-size: .82rem; color: inherit; background: var(--card); border: 1px solid var(--line);
  border-radius: .4rem; padding: .3rem .8rem; cursor: pointer; }
th button { border: 0; background: none; padding: 0; font-size: inherit; text-align: left;
  text-decoration: underline dotted; }
.wide { overflow-x: auto; overflow-wrap: normal; } .wide th { vertical-align: bottom; }
.wide td { white-space: nowrap; }
tr.chosen { background: var(--card); } tr.chosen td { font-weight: 700; }
.strips, .tiles { display: grid; gap: .6rem 1.2rem; margin-bottom: 1rem; }
.strips { grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
.tiles { grid-template-columns: repeat(auto-fill, minmax(min(45%, 11rem), 1fr)); }
.strips img, .tiles img { width: 100%; } h3 { font-size: .95rem; margin: 1rem 0 .3rem; }
"""

SCRIPT = """<script>
function addButton(text, place, action) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...text);
  button.onclick = () => action(button);
  place.append(button);
}
for (const box of document.querySelectorAll(".copy"))
  addButton(["Copy the command"], box, button => {
    getSelection().selectAllChildren(box.querySelector("code"));
    button.textContent = document.execCommand("copy") ? "Copied" : "Selected: press Ctrl+C";
  });
for (const head of document.querySelectorAll("th[data-sort]"))
  addButton([...head.childNodes], head, () => {
    const body = head.closest("table").tBodies[0], up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = row => row.cells[head.cellIndex].dataset.value;
    const order = (a, b) => (key(a) - key(b) || key(a).localeCompare(key(b))) * (up ? 1 : -1);
    const rows = [...body.rows];
    body.append(...rows.filter(key).sort(order), ...rows.filter(row => !key(row)));
  });
</script>"""
"""The buttons are its own, so that there are none where it does not run."""

Pictures = Mapping[str, Sequence[tuple[str, bytes]]]


def number(value: float) -> str:
    """To three digits."""
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


COLUMNS = (
    Column("Sampler", "sampler", lambda row: row["sampler"]),
    Column("Steps", "steps", lambda row: str(row["steps"] or f"to {row['tolerance']:g}")),
    Column("Calls", "calls", lambda row: f"{row['calls']:.4g}"),
    Column("ms a sample", "seconds", lambda row: number(1000 * row["seconds"])),
    Column("Distance", "distance", lambda row: with_error(row["distance"], row["stderr"])),
    Column("Above the smallest", "behind", lambda row: with_error(row["behind"], row["behind_stderr"])),
    Column("Error to the flow", "error", lambda row: "" if row["error"] is None else number(row["error"])),
    Column("On the front of", "", lambda row: ", ".join(fronts(row))),
)


def fronts(row: dict) -> list[str]:
    """The names of the fronts that a row is on."""
    return [key.removeprefix("front_") for key, on in row.items() if key.startswith("front_") and on]


def compare_page(record: dict, pictures: Pictures) -> bytes:
    """The page of a comparison. ``record`` is what its JSON holds; ``pictures`` has headings, and below each captions
    and PNGs."""
    sections = (*_advice(record), *_charts(record), *_table(record), *_pictures(record, pictures), *_method(record))
    return page(f"Samplers compared: {record['run']}", [*sections, SCRIPT], style=STYLE)


def _advice(record: dict) -> Iterator[str]:
    row, (training, _) = next(row for row in record["rows"] if row["recommended"]), record["training_distance"]
    yield f"<h1>Samplers compared <small>{escape(record['run'])}</small></h1>"
    yield (
        f'<p class="advice">Recommended: <strong>{row["sampler"]}</strong>, {row["calls"]:.4g} network calls and '
        f"{number(1000 * row['seconds'])} ms a sample.</p>"
    )
    yield f'<div class="copy"><pre><code>{escape(row["command"])}</code></pre></div>'
    above = f"{with_error(row['behind'], row['behind_stderr'])} above the smallest" if row["behind"] else "the smallest"
    yield (
        f"<p>Distance to held-out data {with_error(row['distance'], row['stderr'])}, {above} here; as many training "
        f"items are at {number(training)}.</p>"
    )


def _charts(record: dict) -> Iterator[str]:
    yield '<h2>What a network call buys</h2>\n<div class="charts">'
    for chart in CHARTS:
        svg = chart_svg(chart, record["rows"], record["training_distance"])
        if svg:
            off = [
                f"{row['sampler']} at {row['calls']:.4g} calls, {number(row['distance'])}"
                for row in beyond(chart, record["rows"])
            ]
            caption = f"<figcaption>Off the chart: {'; '.join(off)}.</figcaption>" if off else ""
            yield f"<figure><h3>{chart.title}</h3>{svg}{caption}</figure>"
    yield "</div>"


def _table(record: dict) -> Iterator[str]:
    yield '<h2>All of them</h2>\n<div class="wide" role="region" aria-label="all samplers" tabindex="0">\n<table>'
    heads = (f'<th scope="col"{" data-sort" * bool(column.key)}>{column.head}</th>' for column in COLUMNS)
    yield f"<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>"
    for row in record["rows"]:
        cells = (f'<td data-value="{_value(row, column)}">{column.text(row)}</td>' for column in COLUMNS)
        mark = ' class="chosen"' if row["recommended"] else ""
        yield f"<tr{mark}>{''.join(cells)}</tr>"
    yield "</tbody>\n</table>\n</div>"
    yield from (f"<p>{escape(note)}</p>" for note in record["notes"])


def _value(row: dict, column: Column) -> str:
    value = row.get(column.key)
    return "" if value is None else str(value)


def _pictures(record: dict, pictures: Pictures) -> Iterator[str]:
    if not pictures:
        return
    yield "<h2>The same seeds</h2>\n<p>In all pictures sample i starts from the same noise.</p>"
    for heading, found in pictures.items():
        yield f'<h3>{heading}</h3>\n<div class="{"strips" if len(record["event_shape"]) > 2 else "tiles"}">'
        for caption, content in found:
            text = image("png", content, f"{caption}: samples, {heading}")
            yield f"<figure><figcaption>{caption}</figcaption>{text}</figure>"
        yield "</div>"


def _method(record: dict) -> Iterator[str]:
    whole = record["features"] == math.prod(record["event_shape"])
    kind = "the entries" if whole else f"{record['features']} principal components"
    yield "<h2>How it was measured</h2>"
    yield f"<p>Recommended: {record['rule']}</p>"
    yield (
        f"<p>{record['num_samples']} samples by each sampler, seed {record['seed']}; sample i of all starts from the "
        "same noise. Network calls were counted, a closing denoising one among them, and both passes of guidance. "
        "Steps are the most that stay within the calls asked for. auto was planned for them once, which took as many "
        "calls as 200 samples at most.</p>"
    )
    yield (
        f"<p>Distance: the squared Frechet distance, on {kind} in model units, to {record['held_out']} held-out items. "
        "Like that of training items it is too large by a share of about 1/n. ± is a standard error, by leaving "
        f"out each of {record['jackknife_groups']} parts of the samples in turn; that of a difference leaves the same "
        "samples out of both, so that what the shared noise does to both does not count.</p>"
    )
    yield (
        f"<p>Time: the median of {record['rounds']} rounds, in which the samplers took turns; {record['device']}, "
        f"{record['threads']} threads, torch {record['torch']}.</p>"
    )
    flow = record["flow"]
    if flow:
        yield (
            f"<p>Error to the flow: root mean square difference between the first {flow['samples']} samples and where "
            "the probability-flow ODE leads from the same noise, in standard deviations of the data, before values "
            f"are rounded. The ODE was solved to a tolerance of {flow['tolerance']:g} with {flow['calls']:.4g} calls a "
            "sample. Stochastic samplers have none, as they lead elsewhere.</p>"
        )
