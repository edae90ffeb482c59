"""How Sphinx builds the site from the pages in this folder: ``make docs``."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from docutils.nodes import Text

if TYPE_CHECKING:
    from docutils.nodes import document
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
for root in ("docs", "engine", "export", "experiments", "serving", "scale", "report", "cli"):
    sys.path.insert(0, str(ROOT / root))  # the docstrings of this folder's code, whatever else is installed

from notebook_parser import NotebookParser  # noqa: E402 - found by the lines above

from instructmining import __version__  # noqa: E402 - found by the lines above

project = "InstructMining"
author = "the InstructMining authors"
project_copyright = f"{author}, Apache-2.0"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown", ".ipynb": "notebook"}
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4  # links to headings as code hosts have them: page.md#heading

smartquotes_action = "qe"  # no dashes: it would make one of the two hyphens of an option

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Source"]

html_theme = "furo"
html_title = f"InstructMining {__version__}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False

# Files outside this folder that a page shows: links to them lead to that page, and links to others fetch the file.
SHOWN = {f"../{name}.md": f"{name.lower()}.md" for name in ("CONTRIBUTING", "SECURITY", "CHANGELOG")}
SHOWN["../benchmarks/README.md"] = "benchmarks.md"
_TOCTREE = re.compile(r"^```\{toctree\}\n.*?^```$", re.MULTILINE | re.DOTALL)


def prepare(app: Sphinx, docname: str, source: list[str]) -> None:
    """Leave out commented lines of toctrees, and rewrite links to Markdown files outside, which are no pages here."""
    source[0] = _TOCTREE.sub(lambda block: re.sub(r"^# .*\n", "", block[0], flags=re.MULTILINE), source[0])
    source[0] = re.sub(r"(?<=\]\()(\.\./[^)#\s]*\.md)(#[^)\s]*)?(?=\))", _led, source[0])


def _led(link: re.Match[str]) -> str:
    return SHOWN[link[1]] + (link[2] or "") if link[1] in SHOWN else f"<path:{link[1]}>"


def hide_constructor(app: Sphinx, what: str, name: str, *_: object) -> tuple[str, None] | None:
    """Leave out what nobody calls: a scorer is made by its method ``open``."""
    return ("", None) if name == "instructmining.Scorer" else None


def write_dashes(app: Sphinx, doctree: document, docname: str) -> None:
    """Write the dash between the name of a parameter and its description, where Sphinx has two hyphens."""
    for text in list(doctree.findall(Text)):
        if text == " -- ":
            text.parent.replace(text, Text(" – "))


def setup(app: Sphinx) -> None:
    """Connect what is above."""
    app.connect("autodoc-process-signature", hide_constructor)
    app.connect("source-read", prepare)
    app.connect("doctree-resolved", write_dashes)
    app.add_source_parser(NotebookParser)
