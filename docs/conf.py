"""The documentation site: ``make docs``."""

import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import sde  # noqa: E402 (from this tree, whatever is installed)

project = "score-sde"
release = sde.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
highlight_language = "none"

html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
html_show_copyright = False
html_math_renderer = "mathml"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"


def inline_math(translator, node: nodes.math) -> None:
    """A formula within a line, as MathML, which browsers show without scripts from elsewhere."""
    translator.body.append(str(tex2mathml(node.astext())))
    raise nodes.SkipNode


def displayed_math(translator, node: nodes.math_block) -> None:
    """A formula of its own, as MathML."""
    translator.body.append(str(tex2mathml(node.astext(), as_block=True)))
    raise nodes.SkipNode


def escape(app, what, name, subject, options, lines: list[str]) -> None:
    """Docstrings are plain text with ``literals``: signs of reStructuredText outside of them stand for themselves."""
    parts = re.split(r"(``.+?``)", "\n".join(lines), flags=re.DOTALL)
    parts[::2] = [re.sub(r"([\\*|_`])", r"\\\1", part) for part in parts[::2]]
    lines[:] = "".join(parts).split("\n")


def setup(app) -> None:
    """Sphinx calls this."""
    app.add_html_math_renderer("mathml", (inline_math, None), (displayed_math, None))
    app.connect("autodoc-process-docstring", escape)
