"""Shows notebooks as pages of the site, with the outputs that are stored in them; nothing is run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from myst_parser.parsers.sphinx_ import MystParser

if TYPE_CHECKING:
    from docutils.nodes import document as Document


class NotebookParser(MystParser):
    """Reads ``.ipynb`` as the Markdown that it stands for."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: Document) -> None:
        """Parse a notebook's JSON into a document."""
        super().parse(markdown_of(inputstring), document)


def markdown_of(notebook: str) -> str:
    """Return a notebook as Markdown: texts as they are, code and outputs in blocks."""
    return "\n\n".join(part for cell in json.loads(notebook)["cells"] for part in _parts(cell)) + "\n"


def _parts(cell: dict[str, Any]) -> Iterator[str]:
    source = _joined(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
    elif cell["cell_type"] == "code" and source.strip():
        yield _block("python", source)
        for output in cell["outputs"]:
            yield _shown(output)


def _shown(output: dict[str, Any]) -> str:
    if output["output_type"] == "stream":
        return _block("text", _joined(output["text"]))
    if output["output_type"] == "error":
        return _block("text", f"{output['ename']}: {output['evalue']}")
    data = output["data"]
    if "text/html" in data:
        return _block("{raw} html", f'<div class="table-wrapper">\n{_joined(data["text/html"])}\n</div>')
    if "image/svg+xml" in data:
        return _block("{raw} html", _joined(data["image/svg+xml"]))
    if "image/png" in data:
        return _block("{raw} html", f'<img alt="" src="data:image/png;base64,{_joined(data["image/png"]).strip()}">')
    return _block("text", _joined(data["text/plain"]))


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def _block(kind: str, text: str) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{kind}\n{text.rstrip()}\n{fence}"
