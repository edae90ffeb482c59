"""Reads an HTML page as a browser's parser splits it: elements, attributes and texts."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

VOID = {"meta", "input", "rect", "br", "wbr"}
_RAW = {"script", "style"}


class Page(HTMLParser):
    """A parsed page.

    Attributes:
        elements: tag and attributes, in order.
        text: text outside of scripts and styles.
        raw: tag and text of each script and style.
        unbalanced: tags that were closed out of order.
    """

    def __init__(self, content: bytes | str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.raw: list[tuple[str, str]] = []
        self.unbalanced: list[str] = []
        self._open: list[str] = []
        self.feed(content if isinstance(content, str) else content.decode())
        self.close()
        self.unbalanced += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in _RAW:
            self.raw.append((tag, ""))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()
        elif tag not in VOID:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in _RAW:
            tag, before = self.raw[-1]
            self.raw[-1] = (tag, before + data)
        else:
            self.text += data

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}

    @property
    def ids(self) -> list[str]:
        return [value for _, attributes in self.elements if (value := attributes.get("id")) is not None]

    @property
    def policy(self) -> dict[str, list[str]]:
        (content,) = (
            found["content"] for tag, found in self.elements if found.get("http-equiv") == "Content-Security-Policy"
        )
        return {name: values for name, *values in (part.split() for part in str(content).split(";"))}

    def check(self) -> None:
        """Check what holds for every page: balanced, nothing loaded, nothing run but what its policy names."""
        assert not self.unbalanced
        assert len(self.ids) == len(set(self.ids))
        for tag, attributes in self.elements:
            assert tag not in {"iframe", "object", "embed", "link", "form", "base", "img", "audio", "video"}
            assert not [name for name in attributes if name.startswith("on") or name in {"style", "src", "srcset"}]
            for name in ("href", "xlink:href"):
                target = attributes.get(name)
                assert target is None or target.startswith(("#", "data:image/png;base64,")), target
                if target is not None and target.startswith("#"):
                    assert target[1:] in self.ids
        used = re.findall(r"url\(#([^)]+)\)", str(self.elements))
        assert set(used) <= set(self.ids)
        policy = self.policy
        assert policy["default-src"] == ["'none'"]
        for tag, text in self.raw:
            digest = f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            is_data = text.startswith("{") and tag == "script"
            assert is_data or policy[f"{tag}-src"] == [digest]
