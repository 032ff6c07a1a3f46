"""Pages as a browser shows them."""

import json
import re
import shutil
import subprocess
from html import escape, unescape
from html.parser import HTMLParser

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
"""What shows pages, where there is one."""


def shown(html: str, script: str, folder, width: int = 400):
    """What ``script``, an expression over a page's ``page`` and ``root`` elements, says of it in a frame of a width;
    fails where there is anything on the console."""
    (folder / "frame.html").write_text(
        f'<iframe width="{width}" height="900" srcdoc="{escape(html)}"></iframe><script>onload = () => {{'
        "const page = frames[0].document, root = page.documentElement;"
        f"document.body.textContent = JSON.stringify({script}) }}</script>"
    )
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         f"--user-data-dir={folder / 'profile'}", f"--window-size={width + 100},1000",
         "--enable-logging=stderr", "--virtual-time-budget=2000", "--dump-dom", f"file://{folder}/frame.html"],
        capture_output=True, text=True, timeout=60, check=True)  # fmt: skip
    assert "CONSOLE" not in done.stderr
    return json.loads(unescape(re.search(r"<body>(.*)</body>", done.stdout, re.DOTALL)[1]))


VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """The elements of a page; fails on tags that do not nest and on ids or attributes given twice."""

    def __init__(self, html):
        super().__init__()
        self.declared, self.open, self.elements, self.seen = "", [], [], {}
        self.feed(html)
        self.close()
        assert self.open == []
        assert self.declared == "doctype html"

    def handle_decl(self, declared):
        self.declared = declared

    def handle_starttag(self, tag, attributes):
        assert len({name for name, _ in attributes}) == len(attributes)
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
            self.seen.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in self.open:
            self.seen[tag][-1] += data

    def attributes(self, tag, name):
        return [values[name] for kind, values in self.elements if kind == tag]
