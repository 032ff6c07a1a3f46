"""Links of the run's page to the other pages of the run."""

import os
import re

from score_sde.pages.links import MOST, renew_links
from score_sde.pages.report import write_report

STATE = {"status": "finished", "step": 2, "steps": 2}


def linked(folder):
    return re.findall(r'<li>([^:]*): <a href="([^"]*)">', (folder / "report.html").read_text())


def test_links_to_what_there_is_and_what_comes_later(tmp_path):
    write_report(tmp_path, config={}, metrics=[], state=STATE)
    assert linked(tmp_path) == []
    before = (tmp_path / "report.html").read_bytes()
    renew_links(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before
    for name in ("compare/compare.html", "evaluation.json", "samples/000003-restore.html", "samples/train-1.html",
                 "samples/000004-guidance-sweep.png", "compare/a & b.html", "report-of-mine.html"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    os.utime(tmp_path / "compare/a & b.html", (0, 0))
    renew_links(tmp_path)
    expected = [
        ("Comparison of samplers", "compare/compare.html"),
        ("Comparison of samplers", "compare/a%20%26%20b.html"),
        ("Evaluation", "evaluation.json"),
        ("Guidance sweep", "samples/000004-guidance-sweep.png"),
        ("Restoration", "samples/000003-restore.html"),
    ]
    assert linked(tmp_path) == expected
    write_report(tmp_path, config={}, metrics=[], state=STATE)
    assert linked(tmp_path) == expected, "also where the whole page is written anew"
    for number in range(MOST + 3):
        (tmp_path / f"samples/{number + 10:06d}-restore.html").touch()
    renew_links(tmp_path)
    assert sum(name == "Restoration" for name, _ in linked(tmp_path)) == MOST
    (tmp_path / "report.html").unlink()
    renew_links(tmp_path)
    assert not (tmp_path / "report.html").exists()
