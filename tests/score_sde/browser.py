"""Pages as a browser shows them."""

import json
import re
import shutil
import subprocess
from html import escape, unescape

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
