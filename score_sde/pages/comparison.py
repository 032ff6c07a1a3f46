"""The page of a comparison of samplers."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from score_sde.kinds import KINDS
from score_sde.kinds.elements import image
from score_sde.metrics.metric import METRICS
from score_sde.pages.charts import beyond, capitalized, charts, inline_svg
from score_sde.pages.frame import page
from score_sde.pages.table import number, real_items, table, with_error
from score_sde.run.outputs import calls

STYLE = """
svg { display: block; width: 100%; height: auto; }
.advice { font-size: 1.1rem; color: var(--ink); } .copy code { user-select: all; }
button { font: inherit; font-size: .82rem; color: inherit; background: var(--card); border: 1px solid var(--line);
  border-radius: .4rem; padding: .3rem .8rem; cursor: pointer; }
th button { border: 0; background: none; padding: 0; font-size: inherit; text-align: left;
  text-decoration: underline dotted; }
tr.chosen td { font-weight: 700; }
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

Pictures = Mapping[str, Sequence[tuple[str, bytes | str]]]


def compare_page(record: dict, pictures: Pictures) -> bytes:
    """The page of a comparison. ``record`` is what its JSON holds; ``pictures`` has headings, and below each captions
    with PNGs or with HTML."""
    sections = (*_advice(record), *_charts(record), *table(record), *_pictures(record, pictures), *_method(record))
    return page(f"Samplers compared: {record['run']}", [*sections, SCRIPT], style=STYLE)


def _advice(record: dict) -> Iterator[str]:
    row, first = next(row for row in record["rows"] if row["recommended"]), record["metrics"][0]
    best = "the largest" if METRICS[first].larger else "the smallest"
    away = "below" if METRICS[first].larger else "above"
    yield f"<h1>Samplers compared <small>{escape(record['run'])}</small></h1>"
    yield (
        f'<p class="advice">Recommended: <strong>{escape(row["title"])}</strong>, {calls(row["nfe"])} and '
        f"{number(1000 * row['seconds'])} ms per sample.</p>"
    )
    yield f'<div class="copy"><pre><code>{escape(row["command"])}</code></pre></div>'
    behind = f"{with_error(row['behind'], row['behind_stderr'])} {away} {best}" if row["behind"] else best
    real, value = record["real"][first], with_error(row["value"], row["stderr"])
    yield (
        f"<p>{capitalized(METRICS[first].title)} to {record['against']} data {value}, {behind} here; "
        f"{real_items(record)} have {with_error(real['value'], real['spread'])}: {row['reading']}.</p>"
    )
    ties = [f"{escape(other['title'])} at {other['nfe']:.4g}" for other in record["rows"] if other["tied"]]
    if len(ties) > 1:
        yield f"<p>Tied with the best: {', '.join(ties)} network calls.</p>"


def _charts(record: dict) -> Iterator[str]:
    yield '<h2>What a network call buys</h2>\n<div class="charts">'
    first = record["metrics"][0]
    for chart in charts(METRICS[first], record["real"][first], record["against"]):
        svg = inline_svg(chart, record["rows"])
        if svg:
            off = [
                f"{escape(row['title'])} at {row['nfe']:.4g} calls, {number(row['value'])}"
                for row in beyond(chart, record["rows"])
            ]
            caption = f"<figcaption>Off the chart: {'; '.join(off)}.</figcaption>" if off else ""
            yield f"<figure><h3>{chart.title}</h3>{svg}{caption}</figure>"
    yield "</div>"


def _pictures(record: dict, pictures: Pictures) -> Iterator[str]:
    if not pictures:
        return
    yield "<h2>The same seeds</h2>\n<p>In all pictures sample i starts from the same noise.</p>"
    for heading, found in pictures.items():
        yield f'<h3>{heading}</h3>\n<div class="{"strips" if KINDS[record["kind"]].layout == "sheet" else "tiles"}">'
        for caption, content in found:
            samples = f"{caption}: samples, {heading}"
            text = content if isinstance(content, str) else image("png", content, samples)
            yield f"<figure><figcaption>{escape(caption)}</figcaption>{text}</figure>"
        yield "</div>"


def _method(record: dict) -> Iterator[str]:
    name, found = record["extractor"]["name"], record["extractor"]["features"]
    kind = "the items' entries in model units" if name == "data" else f"features of {escape(name)}"
    if record["features"] < found:
        kind = f"{record['features']} principal components of {kind}"
    metrics = [METRICS[name] for name in record["metrics"]]
    names = " and ".join(metric.title for metric in metrics if metric.biased)
    biased = f"The {names}, of real items too, is too large by a share of about 1/n. " if names else ""
    yield "<h2>How it was measured</h2>"
    yield f"<p>Recommended: {record['rule']}</p>"
    yield (
        f"<p>{record['num_samples']} samples by each sampler, seed {record['seed']}; sample i of all starts from the "
        "same noise. Network calls were counted, a closing denoising one among them, and both passes of guidance. "
        "Steps are the most that stay within the calls asked for. auto was planned for them once, which took as many "
        "calls as 200 samples at most.</p>"
    )
    yield (
        f"<p>{capitalized(', '.join(metric.title for metric in metrics))}: of {kind}, against {record['items']} "
        f"{record['against']} items. {biased}Real items are random splits of held-out and training items, "
        f"{record['division'][0]} against {record['division'][1]}, and ± is "
        "their standard deviation; told from them is a value that at most 1 in 100 of such splits "
        "would reach. Of samples ± is a standard error, by leaving "
        f"out each of {record['jackknife_groups']} parts of the samples in turn; that of a difference leaves the same "
        "samples out of both, so that what the shared noise does to both does not count.</p>"
    )
    yield (
        f"<p>Time: the median of {record['rounds']} rounds, in which the samplers took turns; {record['device']}, "
        f"{record['threads']} thread{'s' * (record['threads'] > 1)}, torch {record['torch']}.</p>"
    )
    flow, several = record["flow"], any(row.get("run") for row in record["rows"])
    if flow:
        taught = (
            " A student's is that to the flow of its teacher, where that is among the runs, with the guidance that the "
            "student was taught; others have none."
        )
        yield (
            f"<p>Error to the flow: root mean square difference between the first {flow['samples']} samples and where "
            "the probability-flow ODE leads from the same noise, in standard deviations of the data, before values "
            f"are rounded. The ODE was solved to a tolerance of {flow['tolerance']:g} with {flow['nfe']:.4g} calls a "
            f"sample. Stochastic samplers have none, as they lead elsewhere.{taught * several}</p>"
        )
