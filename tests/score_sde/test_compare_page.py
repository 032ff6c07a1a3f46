"""The page of a comparison: it says what the JSON says, needs nothing else, and works in a browser."""

import base64
import io
import json
import math
import re

import pytest
from PIL import Image

from score_sde.metrics.metric import METRICS
from score_sde.pages.charts import COLORS, beyond, charts, inline_svg
from score_sde.pages.comparison import compare_page
from score_sde.pages.frame import STYLE
from score_sde.pages.table import columns, number, with_error
from tests.score_sde.browser import BROWSER, Page, shown

pytestmark = pytest.mark.rendered

COMMAND = "python main.py --mode sample --workdir 'runs/a <run>' --sampler auto --steps 9"


def png(shade):
    buffer = io.BytesIO()
    Image.new("L", (642, 66), shade).save(buffer, "PNG")
    return buffer.getvalue()


def row(sampler, calls, value, error=None, **more):
    fronts = {"front_nfe": False, "front_seconds": False, "front_error": False}
    adaptive = sampler == "ode"
    return {"sampler": sampler, "title": sampler, "run": "", "steps": None if adaptive else calls - 1,
            "tolerance": 0.01 if adaptive else None,
            "budget": None if adaptive else calls, "nfe": float(calls), "seconds": calls / 1234, "value": value,
            "stderr": value / 9, "behind": value - 0.2, "behind_stderr": 0.05, "error": error,
            "metrics": {"frechet": {"value": value, "stderr": value / 9},
                                             "recall": {"value": value / 3, "stderr": 0.1}},
            "command": COMMAND, "recommended": False, "tied": value < 0.25, "reading": "not told",
            **fronts, **more}  # fmt: skip


REAL = {
    "value": 0.19,
    "spread": 0.01,
    "low": -0.16,
    "high": 0.22,
    "values": [0.18, 0.2],
    "between": 0.2,
    "differ": False,
}
RECORD = {
    "run": "a <run>", "weights": "model.safetensors", "num_samples": 256, "seed": 0,
    "event_shape": [1, 8, 8], "kind": "image", "items": 360, "against": "held-out", "features": 64,
    "division": [256, 360],
    "real": {"frechet": REAL, "recall": REAL | {"value": 0.8, "spread": 0.1}},
    "metrics": ["frechet", "recall"],
    "extractor": {"name": "data", "features": 64}, "jackknife_groups": 16, "rounds": 4,
    "flow": {"samples": 64, "tolerance": 1e-6, "nfe": 131.25}, "device": "cpu", "threads": 2, "torch": "2.13.0",
    "rule": "The cheapest.", "notes": ["heun, 5 calls, is left out: sample 3 became <non-finite>."],
    "rows": [
        row("ddim", 5, 2.34567, 0.3), row("auto", 10, 0.22, 0.01, recommended=True, front_nfe=True, front_error=True),
        row("pc", 10, 0.31), row("ode", 44.53125, 0.2, 0.002, front_nfe=True, front_seconds=True),
    ],
}  # fmt: skip
PICTURES = {"10 network calls": [("auto", png(1)), ("pc", png(2))], "To compare with": [("held-out items", png(3))]}
HTML = compare_page(RECORD, PICTURES).decode()
COLUMNS = columns(RECORD["metrics"])
CHARTS = charts(METRICS["frechet"], REAL, "held-out")


def test_the_table_is_the_json():
    page = Page(HTML)
    assert page.seen["th"] == [column.head for column in COLUMNS]
    width, values = len(COLUMNS), [values.get("data-value") for tag, values in page.elements if tag == "td"]
    assert len(values) == width * len(RECORD["rows"])
    for i, its in enumerate(RECORD["rows"]):
        held = dict(zip([column.key for column in COLUMNS], values[i * width :], strict=False))
        for key in ("steps", "nfe", "seconds", "value", "behind", "error"):
            assert held[key] == ("" if its[key] is None else repr(its[key]))
        assert held["recall"] == repr(its["metrics"]["recall"]["value"])
    cells = [page.seen["td"][i : i + width] for i in range(0, len(values), width)]
    assert cells[0] == ["ddim", "4", "5", "4.05", "2.35 ± 0.26", "2.146 ± 0.050", "0.78 ± 0.10", "0.3", ""]
    assert cells[1] == ["auto", "9", "10", "8.1", "0.220 ± 0.024", "0.020 ± 0.050", "0.07 ± 0.10", "0.01",
                        "calls, error"]  # fmt: skip
    assert cells[3] == ["ode", "to 0.01", "44.53", "36.1", "0.200 ± 0.022", "0.000 ± 0.050", "0.07 ± 0.10",
                        "0.002", "calls, seconds"]  # fmt: skip
    assert [values.get("class") for tag, values in page.elements if tag == "tr"][1:] == [None, "chosen", None, None]


def test_the_recommendation_comes_first():
    page = Page(HTML)
    assert page.seen["title"] == ["Samplers compared: a <run>"]
    assert page.seen["p"][0] == "Recommended: auto, 10 network calls and 8.1 ms per sample."
    assert page.seen["code"] == [COMMAND]
    said = "0.220 ± 0.024, 0.020 ± 0.050 above the smallest here; as many real items have 0.190 ± 0.010: not told."
    assert said in page.seen["p"][1]
    assert page.seen["p"][2] == "Tied with the best: auto at 10, ode at 44.53 network calls."
    best = RECORD | {"rows": [row("ode", 44, 0.2, 0.1, recommended=True)]}
    assert "0.200 ± 0.022, the smallest here" in Page(compare_page(best, {}).decode()).seen["p"][1]


def test_one_page_that_needs_nothing_else():
    page = Page(HTML)
    assert not {"link", "iframe", "object", "a"} & {tag for tag, _ in page.elements}
    assert all(source.startswith("data:image/png;base64,") for source in page.attributes("img", "src"))
    assert [base64.b64decode(source.partition(",")[2]) for source in page.attributes("img", "src")] == [
        content for found in PICTURES.values() for _, content in found
    ]
    assert page.attributes("img", "alt")[0] == "auto: samples, 10 network calls"
    assert "url(" not in page.seen["style"][0]
    assert all(target.startswith("#") for target in re.findall(r'(?:xlink:href|href|src)="(?!data:)([^"]*)"', HTML))
    ids = re.findall(r'\bid="([^"]*)"', HTML)
    assert len(set(ids)) == len(ids) > 0
    assert HTML.count('role="img" aria-label=') == 3


def test_what_is_not_known_is_left_out():
    rows = [row("pc", 10, 0.3, recommended=True)]
    page = Page(compare_page(RECORD | {"rows": rows, "flow": None}, {}).decode())
    assert page.seen["h3"] == ["Frechet distance by network calls", "Frechet distance by time"]
    assert "The same seeds" not in page.seen["h2"]
    assert not any("probability-flow" in paragraph for paragraph in page.seen["p"])


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.title)
def test_charts_show_every_row_that_has_numbers(chart):
    numbers = [(5, 0.0, None), (9, 0.5, 1e-5), (20, 4000.0, 0.3)]
    rows = [row(f"s{i}", *values, front_nfe=i == 1, recommended=i == 1) for i, values in enumerate(numbers)]
    svg = inline_svg(chart, rows)
    for i, its in enumerate(rows):
        assert (f">s{i}</text>" in svg) == (its[chart.loss] is not None)
    assert "currentColor" in svg
    assert "#010203" not in svg
    assert chart.across in svg
    # A ring is one more marker.
    ringed = inline_svg(chart, [its | {chart.front: True} for its in rows])
    assert ringed.count("<use") - svg.count("<use") == sum(its[chart.loss] is not None for its in rows) - (
        chart.front == "front_nfe"
    )


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(*colors):
    low, high = sorted(map(luminance, colors))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_wcag_in_light_and_dark():
    for theme in re.findall(r"--ink: .*", STYLE):
        found = {name: f"{value:0<7}" if len(value) == 7 else "#ffffff"
                 for name, value in re.findall(r"--(\w+): (#\w+);", theme)}  # fmt: skip
        for ground in ("page", "card"):
            assert contrast(found["ink"], found[ground]) > 7
            assert contrast(found["faint"], found[ground]) > 4.5
        assert all(contrast(color, found["page"]) > 3 for color in COLORS)
    assert len(re.findall(r"--ink: .*", STYLE)) == 2


def test_numbers():
    assert [number(value) for value in (0.0123456, 12.3456, 1234567.0)] == ["0.0123", "12.3", "1.23e+06"]
    given = [(1.23456, 0.0987), (1.23456, 0.1), (123.456, 9.99), (17912.3, 1203.4), (0.2, 0.0), (0.2, math.inf)]
    assert [with_error(*pair) for pair in given] == [
        "1.235 ± 0.099", "1.23 ± 0.10", "123.5 ± 10.0", "17912 ± 1203", "0.2", "0.2"]  # fmt: skip


def test_a_distance_that_would_hide_the_others_is_off_the_chart():
    rows = [row("auto", 5, 1.0), row("ddim", 5, 5.9), row("heun", 9, 49.0), row("pc", 9, 6.1)]
    assert [[its["sampler"] for its in beyond(chart, rows)] for chart in CHARTS] == [["heun", "pc"], ["heun", "pc"], []]
    captions = Page(HTML).seen["figcaption"]
    assert captions[:2] == ["Off the chart: ddim at 5 calls, 2.35."] * 2


def test_of_a_metric_that_should_be_large():
    """Nothing is hidden that is good, and the page says below the largest."""
    shares = charts(METRICS["recall"], 0.8, "held-out")
    rows = [row("auto", 5, 0.9), row("ddim", 5, 0.1), row("pc", 9, 0.0)]
    assert [beyond(chart, rows) for chart in shares] == [[], [], []]
    assert shares[0].title == "Recall by network calls"
    found = RECORD | {"metrics": ["recall"], "rows": [its | {"metrics": {}} for its in RECORD["rows"]]}
    page = Page(compare_page(found, {}).decode())
    assert page.seen["th"][4:6] == ["Recall", "Below the largest"]
    assert "0.020 ± 0.050 below the largest here; as many real items have 0.80 ± 0.10: not told." in page.seen["p"][1]
    assert not any("1/n" in paragraph for paragraph in page.seen["p"])
    assert any("1/n" in paragraph for paragraph in Page(HTML).seen["p"])


@pytest.mark.parametrize("values", [(-0.001, 0.002, 0.004, 3.0), (0.001, 0.002, 0.004, 3.0)])
def test_outliers_of_distances_below_zero(values):
    rows = [row(f"s{i}", 5, value) for i, value in enumerate(values)]
    assert [its["sampler"] for its in beyond(charts(METRICS["kernel"], 0.0, "held-out")[0], rows)] == ["s3"]


if BROWSER:

    @pytest.mark.parametrize("width", [400, 1200])
    def test_in_a_browser(tmp_path, width):
        """Images load, nothing is wider than the page, buttons sort and select, and nothing is on the console."""
        names, sort = "[...page.querySelectorAll('tbody tr')].map(row => row.cells[0].textContent)", "heads[7].click()"
        found = shown(HTML, "{images: [...page.images].map(image => image.naturalWidth), widest: root.scrollWidth,"
                      "page: root.clientWidth, charts: [...page.querySelectorAll('svg')].map(svg => svg.clientWidth),"
                      f"heads: heads = page.querySelectorAll('th button'), before: {names}, sort: {sort},"
                      f"after: {names}, sorted: page.querySelectorAll('th')[7].ariaSort, again: {sort}, back: {names},"
                      "copy: (copy = page.querySelector('.copy button')).click(),"
                      "selected: frames[0].getSelection().toString(), said: copy.textContent}",
                      tmp_path, width)  # fmt: skip
        assert found["images"] == [642] * 3
        assert found["widest"] <= found["page"] <= width
        assert len(found["charts"]) == 3
        assert all(0 < chart <= width for chart in found["charts"])
        assert found["before"] == [its["sampler"] for its in RECORD["rows"]]
        assert found["after"] == ["ode", "auto", "ddim", "pc"]
        assert found["sorted"] == "ascending"
        assert found["back"] == ["ddim", "auto", "ode", "pc"]
        assert found["selected"] == COMMAND
        assert found["said"] != "Copy the command"

    def test_the_console_is_heard(tmp_path):
        with pytest.raises(AssertionError):
            shown("<script>nothing()</script>", "1", tmp_path)
        assert json.dumps(shown("<p>fine</p>", "1", tmp_path)) == "1"
