"""Reads HTML strictly: elements close in order, ids and links are counted, cells are found."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"br", "hr", "img", "input", "link", "meta"}
_SHAPES = {"path", "rect"}  # closed by their own slash


@dataclass
class Read:
    """What stands in a piece of HTML."""

    elements: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)  # element, name, value
    tables: list[list[list[str]]] = field(default_factory=list)  # table → row → cell
    text: str = ""


def read_html(text: str) -> Read:
    """Read a piece of HTML.

    Raises:
        AssertionError: an element is not closed, or closed by another one's tag.
    """
    parser = _Parser()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser.read


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.read = Read()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in _SHAPES, f"{tag} is not closed"
        self._seen(tag, attrs)
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _SHAPES | _VOID, f"{tag} cannot close itself"
        self._seen(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.read.text += data
        if {"td", "th"} & set(self.open):
            self.read.tables[-1][-1][-1] += data

    def _seen(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.read.elements.append(tag)
        self.read.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "table":
            self.read.tables.append([])
        elif tag == "tr":
            self.read.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.read.tables[-1][-1].append("")
