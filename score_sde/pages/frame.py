"""The frame of a page that needs no other file: its style, its images."""

from collections.abc import Iterable
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1d2126; --faint: #646b75; --line: #dfe3e8; --page: #fff; --card: #f6f7f9;
  --shade: #0006; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --faint: #9aa2ad; --line: #343a42; --page: #15181c; --card: #1e2227;
    --shade: #fff7; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1040px; padding: 1rem 1rem 3rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: .5rem 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
h1 small { font-size: .8rem; font-weight: 600; padding: .2em .7em; border-radius: 1em; vertical-align: middle;
  background: var(--card); border: 1px solid var(--line); white-space: nowrap; }
p, figcaption, dt, th, .faint { color: var(--faint); } p { margin: .4rem 0; }
.charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
figure { margin: 0; } figure h3 { font-size: .95rem; margin: 0 0 .2rem; }
figcaption { font-size: .82rem; } img { display: block; max-width: 100%; height: auto; }
.charts img { width: 100%; } .items { display: flex; flex-wrap: wrap; gap: .4rem; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th, td { text-align: left; font-weight: 400; padding: .2rem .6rem .2rem 0; border-top: 1px solid var(--line);
  vertical-align: top; } td, pre { font-family: ui-monospace, monospace; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem;
  margin: .2rem 0 .8rem; white-space: pre-wrap; font-size: .85rem; }
summary { cursor: pointer; }
.wide { overflow-x: auto; overflow-wrap: normal; background-repeat: no-repeat;
  background-image: linear-gradient(to right, var(--page) 40%, transparent),
    linear-gradient(to left, var(--page) 40%, transparent), linear-gradient(to right, var(--shade), transparent),
    linear-gradient(to left, var(--shade), transparent);
  background-size: 3rem 100%, 3rem 100%, 1.2rem 100%, 1.2rem 100%; background-attachment: local, local, scroll, scroll;
  background-position: left, right, left, right; }
.wide th { vertical-align: bottom; min-width: 4.5rem; } .wide td { white-space: nowrap; }
.cue { display: none; } @media (max-width: 44rem) { .cue { display: block; } }
"""
"""Of what is wider than the page, a shade lies on the edge behind which there is more."""


def page(title: str, sections: Iterable[str], *, style: str = "", head: str = "") -> bytes:
    """A whole page of sections of HTML; ``style`` is added to STYLE, ``head`` to the head."""
    body = "".join(f"{section}\n" for section in sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{head}<title>{escape(title)}</title>
<style>{STYLE}{style}</style>
</head>
<body>
{body}</body>
</html>
""".encode("utf-8", "backslashreplace")


def wide(content: str, label: str, cue: str = "") -> str:
    """Content that may be wider than the page, as a region that scrolls sideways, with a shade where there is more; on
    narrow screens the ``cue`` is above it."""
    said = f'<p class="cue">{escape(cue)}</p>\n' if cue else ""
    return f'{said}<div class="wide" role="region" aria-label="{escape(label)}" tabindex="0">\n{content}\n</div>'
