"""The page of a run: what it says, that it is valid and needs nothing else, and how a browser shows it."""

import base64
import io
import math
import re
import shlex
from itertools import pairwise

import pytest
from PIL import Image

from score_sde.cli import command
from score_sde.pages.report import MAX_PICTURES, duration, write_report
from score_sde.plots.curves import CHARTS
from tests.score_sde.browser import BROWSER, Page, shown

pytestmark = pytest.mark.rendered

CONFIG = {
    "data": {"root": "<a> & \"b\" 'c'", "event_shape": (1, 8, 8)},
    "training": {"lr": 1e-4, "warmup": {"steps": 5}},
}
OLD = [{"step": 50, "loss": 0.5, "lr": 0.001, "items_per_second": 700.0}, {"step": 100, "held_out_loss": 0.4}]
STATE = {
    "status": "finished",
    "step": 200,
    "steps": 200,
    "parameters": 756417,
    "device": "cpu",
    "precision": "bfloat16",
}


def metrics(steps=200):
    lines = []
    for step in range(10, steps + 1, 10):
        lines.append({"step": step, "seen": 64 * step, "loss": 0.3 + math.exp(-step / 50), "lr": 1e-3,
                      "grad_norm": 0.5, "skipped": step // 100, "items_per_second": 700.4,
                      "seconds_left": 3.0 * (steps - step)})  # fmt: skip
        if step % 50 == 0:
            by_noise = [{"noise_level": 0.1 * 2**k, "ema": 0.9 - 0.1 * k, "raw": 0.9 - 0.09 * k} for k in range(8)]
            lines.append({"step": step, "held_out_loss": 0.4 + abs(step - 150) / 1000, "held_out_loss_raw": 0.5,
                          "by_noise": by_noise})  # fmt: skip
            lines.append({"step": step, "nearest": {"median": 0.5, "smallest": 0.2, "held_out_median": 0.4,
                                                    "held_out_smallest": 0.3, "ratio": 1.25}})  # fmt: skip
    return lines


def add_pictures(folder, steps):
    (folder / "samples").mkdir(parents=True)
    for step in steps:
        Image.new("L", (64, 40), step % 256).save(folder / "samples" / f"train-{step:07d}.png")


def page_of(folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    path = write_report(folder, **{"config": CONFIG, "metrics": metrics(), "state": STATE, **changes})
    assert path == folder / "report.html"
    return Page(path.read_text())


def facts(page):
    return dict(zip(page.seen.get("dt", []), page.seen.get("dd", []), strict=True))


def test_what_it_says(tmp_path):
    page = page_of(tmp_path / "digits")
    assert page.seen["title"] == ["digits"]
    assert page.seen["small"] == ["finished"]
    assert page.seen["p"][0].startswith("Step 200 of 200. Written ")
    assert {name: value.strip() for name, value in facts(page).items()} == {
        "Held-out loss": "0.45 lowest 0.4 at step 150", "Training loss": "0.3183",
        "Distance to training data": "125% of that of held-out items", "Items seen": "12,800",
        "Items per second": "700", "Skipped steps": "2",
        "Parameters": "756,417", "Device": "cpu", "Precision": "bfloat16"}  # fmt: skip
    assert page.seen["h3"] == [chart.title for chart in CHARTS]
    assert dict(zip(page.seen["th"], page.seen["td"], strict=True)) == {
        "data.root": repr(CONFIG["data"]["root"]), "data.event_shape": "(1, 8, 8)", "training.lr": "0.0001",
        "training.warmup.steps": "5"}  # fmt: skip


def test_a_run_in_progress_says_when_it_ends_and_loads_anew(tmp_path):
    lines = [{"step": 180, "seconds_left": 99.0}, {"step": 190, "seconds_left": 30.4}, {"step": 190, "nearest": {}}]
    running = page_of(tmp_path / "a", metrics=lines, state=STATE | {"status": "running", "step": 190, "steps": 200})
    assert re.match(
        r"Step 190 of 200\. 30 s left, until about \d{4}-\d\d-\d\d \d\d:\d\d\. Written ", running.seen["p"][0]
    )
    assert running.attributes("progress", "value") == ["190"]
    assert [values for _, values in running.elements if values.get("http-equiv") == "refresh"]
    never = page_of(tmp_path / "c", metrics=[{"step": 1, "seconds_left": 1e15}], state=STATE | {"status": "running"})
    assert " d 1 h left. Written" in never.seen["p"][0]
    stopped = page_of(tmp_path / "b", metrics=lines, state=STATE | {"status": "stopped by SIGTERM", "step": 190})
    assert "left" not in stopped.seen["p"][0]
    assert not [values for _, values in stopped.elements if "http-equiv" in values]


@pytest.mark.parametrize("lines", [OLD, [], [{"step": 10, "loss": None, "nearest": {}, "by_noise": []}]])
def test_lines_with_few_keys(tmp_path, lines):
    page = page_of(tmp_path, metrics=lines, state={"status": "running", "step": 0, "steps": 10})
    assert page.seen.get("h3", []) == (["Loss", "Learning rate", "Items per second"] if lines is OLD else [])
    assert facts(page).keys() == ({"Held-out loss", "Training loss", "Items per second"} if lines is OLD else set())


def test_one_page_that_needs_nothing_else(tmp_path):
    add_pictures(tmp_path, [100])
    (tmp_path / "tensorboard").mkdir()
    page = page_of(tmp_path)
    assert not {"script", "link", "iframe", "object", "a"} & {tag for tag, _ in page.elements}
    sources = page.attributes("img", "src")
    assert len(sources) == 7
    assert all(source.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,")) for source in sources)
    assert "url(" not in page.seen["style"][0]
    assert "@import" not in page.seen["style"][0]
    # In the SVGs, addresses are names of formats; nothing refers to another file.
    for source in sources[1:]:
        svg = base64.b64decode(source.partition(",")[2]).decode()
        assert all(target.startswith("#") for target in re.findall(r'(?:xlink:href|href|src)="([^"]*)"', svg))
    assert all(page.attributes("img", "alt"))
    assert not list(tmp_path.glob(".*")), "no temporary file is left"


def test_sample_history_is_spread_out_newest_first(tmp_path):
    steps = [10 * n for n in range(1, 41)] + [20_000_000]
    add_pictures(tmp_path, steps)
    (tmp_path / "samples" / "train-best.png").write_bytes(b"of the user's own")
    page = page_of(tmp_path, metrics=[])
    shown = [int(re.sub(r"\D", "", alt)) for alt in page.attributes("img", "alt") if alt.startswith("samples at")]
    assert len(shown) == MAX_PICTURES
    assert shown == sorted(shown, reverse=True)
    assert (shown[0], shown[-1]) == (20_000_000, 10)
    assert all(20 <= a - b <= 40 for a, b in pairwise(shown[1:]))
    with Image.open(io.BytesIO(base64.b64decode(page.attributes("img", "src")[1].partition(",")[2]))) as image:
        assert image.getpixel((0, 0)) == shown[1] % 256


@pytest.mark.parametrize("step", [100, 200])
def test_the_commands_are_commands(tmp_path, step):
    folder = tmp_path / "a run's <folder>"
    page = page_of(folder, metrics=[], state=STATE | {"step": step})
    commands = [shlex.split(text) for text in page.seen["pre"]]
    assert [words[words.index("--mode") + 1] for words in commands] == ["train", "sample", "sample", "likelihood"]
    for words in commands:
        assert words[:2] == ["python", "main.py"]
        assert words[words.index("--workdir") + 1] == str(folder)
        plain, overrides = command.split_arguments(words[2:])
        assert command.define_flags()(["main.py", *plain])[1:] == [], "no unknown arguments"
        assert overrides == (["--config.training.steps=400"] if step == 200 and "train" in words else [])


@pytest.mark.parametrize(("seconds", "words"), [
    (0, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (3_599, "59 min 59 s"), (3_600, "1 h 0 min"),
    (2 * 3_600 + 5 * 60 + 59, "2 h 5 min"), (86_400 * 3 + 7_300, "3 d 2 h"),
])  # fmt: skip
def test_duration(seconds, words):
    assert duration(seconds) == words


if BROWSER:

    def test_in_a_browser_of_a_phones_width(tmp_path):
        """Every image loads, nothing is wider than the page, and there is nothing on the console."""
        add_pictures(tmp_path / "run", [100, 200])
        long = {"root": "/a/very/long/path" * 20, "name": "x" * 300}
        page_of(tmp_path / "run", config={"data": long})
        html = (tmp_path / "run" / "report.html").read_text()
        found = shown(html, "{open: page.querySelector('details').open = true, page: root.clientWidth,"
                      "images: [...page.images].map(image => image.naturalWidth), widest: root.scrollWidth}",
                      tmp_path)  # fmt: skip
        assert len(found["images"]) == 8
        assert all(found["images"])
        assert found["widest"] <= found["page"] <= 400
