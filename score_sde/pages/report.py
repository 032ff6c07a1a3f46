"""The page of a training run: where it stands, curves, samples, config, and how to go on."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from html import escape
from pathlib import Path

from score_sde.config.program import program, quoted
from score_sde.kinds.elements import image
from score_sde.pages.frame import page, wide
from score_sde.pages.links import links
from score_sde.plots.chart import chart_svg
from score_sde.plots.curves import CHARTS, present, series
from sde.data.statistics import spread
from sde.files import write_whole

MAX_PICTURES = 13
"""Pictures of samples at most on a page: the newest as large as four of the others, in rows of four."""

STYLE = """
progress { width: 100%; height: .7rem; accent-color: #3b82d0; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .6rem; margin: .8rem 0; }
dl div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .45rem .7rem; }
dt, dd span { font-size: .8rem; } dd { margin: 0; font-weight: 600; } dd span { display: block; font-weight: 400; }
.history { display: grid; gap: 1rem; grid-template-columns: 1fr 1fr; }
.history figure:first-child { grid-column: span 2; }
@media (min-width: 44rem) {
  .history { grid-template-columns: repeat(4, 1fr); } .history figure:first-child { grid-row: span 2; }
}
.history img { width: 100%; }
"""


FACTS = (
    ("Held-out loss", "held_out_loss", ".4g"),
    ("Training loss", "loss", ".4g"),
    ("Distance to training data", "ratio", ".0%"),
    ("Items seen", "seen", ",d"),
    ("Items per second", "items_per_second", ",.0f"),
    ("Skipped steps", "skipped", ",d"),
    ("Parameters", "parameters", ",d"),
    ("Device", "device", ""),
    ("Precision", "precision", ""),
    ("Classes", "classes", ""),
)
"""Names, keys and formats of what is said of a run, where it is known."""


def write_report(folder: Path, *, config: dict, metrics: Sequence[dict], state: dict) -> Path:
    """Write ``report.html`` into a run folder, whole or not at all: one page that needs no other file.

    ``metrics`` are the run's lines, of which any key but "step" may be missing. ``state`` holds "status" ("running",
    "finished", or how else it ended), "step" and "steps", and where known "parameters", "device" and "precision". A
    page that says "running" loads itself anew every minute.
    """
    latest = {key: value for line in metrics for key, value in line.items() if value is not None} | state
    running = state["status"] == "running"
    refresh = '<meta http-equiv="refresh" content="60">\n' if running else ""
    sections = (
        _head(folder.name, latest, running),
        _facts(latest, metrics),
        *_samples(folder),
        *_charts(metrics),
        links(folder),
        *_commands(folder, state),
        *_config(config),
    )
    path = folder / "report.html"
    write_whole(path, page(folder.name, sections, style=STYLE, head=refresh))
    return path


def duration(seconds: float) -> str:
    """A time span in its two largest units."""
    left = round(seconds)
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    first = next((i for i, (_, size) in enumerate(units) if left >= size), len(units) - 1)
    words = []
    for name, size in units[first : first + 2]:
        words.append(f"{left // size} {name}")
        left %= size
    return " ".join(words)


def _head(name: str, latest: dict, running: bool) -> str:
    now, step, steps = datetime.now().astimezone(), latest["step"], latest["steps"]
    left, end = latest.get("seconds_left") if running else None, ""
    if left is not None:
        # Dates end with the year 9999.
        until = f", until about {now + timedelta(seconds=left):%Y-%m-%d %H:%M}" if left < 1e10 else ""
        end = f" {duration(left)} left{until}."
    return (
        f"<h1>{escape(name)} <small>{escape(latest['status'])}</small></h1>\n"
        f'<progress aria-label="steps done" value="{step}" max="{steps}"></progress>\n'
        f"<p>Step {step:,} of {steps:,}.{end} Written {now:%Y-%m-%d %H:%M %Z}.</p>"
    )


def _facts(latest: dict, metrics: Sequence[dict]) -> str:
    latest = latest | (latest.get("nearest") or {})
    notes = {"ratio": "of that of held-out items"}
    steps, losses = series(metrics, "held_out_loss")
    if len(losses):
        notes["held_out_loss"] = f"lowest {losses.min():.4g} at step {steps[losses.argmin()]:,.0f}"
    rows = [
        f"<div><dt>{name}</dt><dd>{escape(format(latest[key], form))} <span>{notes.get(key, '')}</span></dd></div>"
        for name, key, form in FACTS
        if latest.get(key) is not None
    ]
    return "\n".join(["<dl>", *rows, "</dl>"])


def _samples(folder: Path) -> Iterator[str]:
    numbered = {path.with_suffix("") for path in folder.glob("samples/train-*.*") if path.suffix in (".png", ".html")}
    steps = ((path.name.partition("-")[2], path) for path in numbered)
    found = sorted(((int(step), path) for step, path in steps if step.isdigit()), reverse=True)
    if not found:
        return
    yield '<h2>Samples</h2>\n<p>Of the averaged weights, from the same noise every time.</p>\n<div class="history">'
    for i in spread(len(found), MAX_PICTURES).tolist():
        step, path = found[i]
        picture, items = path.with_suffix(".png"), path.with_suffix(".html")
        shown = image("png", picture.read_bytes(), f"samples at step {step:,}") if picture.exists() else ""
        shown += items.read_text(encoding="utf-8") if items.exists() else ""
        yield f"<figure>{shown}<figcaption>step {step:,}</figcaption></figure>"
    yield "</div>"


def _charts(metrics: Sequence[dict]) -> Iterator[str]:
    charts = present(CHARTS, metrics)
    if not charts:
        return
    yield '<h2>Curves</h2>\n<div class="charts">'
    for chart in charts:
        picture = image("svg+xml", chart_svg(chart, metrics), chart.title)
        yield f"<figure><h3>{chart.title}</h3>{picture}<figcaption>{chart.meaning}</figcaption></figure>"
    yield "</div>"


def _commands(folder: Path, state: dict) -> Iterator[str]:
    def command(mode: str, options: str = "") -> str:
        return f"{program()} --mode {mode} --workdir {quoted(folder)}{options}"

    done = state["step"] >= state["steps"]
    commands = {
        "Train longer" if done else "Go on training": command(
            "train", f" --config.training.steps={2 * state['steps']}" if done else ""
        ),
        "Draw samples": command("sample", " --num_samples 64"),
        "Draw samples with few network calls": command("sample", " --sampler auto --steps 8"),
        "Likelihood of held-out items": command("likelihood", " --num_samples 256"),
    }
    if (folder / "tensorboard").exists():
        commands["The curves in TensorBoard"] = f"tensorboard --logdir {quoted(folder / 'tensorboard')}"
    yield "<h2>How to go on</h2>"
    for name, text in commands.items():
        yield f"<p>{name}</p>\n<pre>{escape(text)}</pre>"


def _config(config: dict) -> Iterator[str]:
    yield "<h2>Config</h2>\n<details>\n<summary>All keys, as resolved; set with --config.KEY=VALUE</summary>"
    rows = (
        f'<tr><th scope="row">{escape(key)}</th><td>{escape(repr(value))}</td></tr>' for key, value in _flat(config)
    )
    yield wide("\n".join(["<table>", *rows, "</table>"]), "all keys")
    yield "</details>"


def _flat(config: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
