"""Makes text of rows safe and true to see: markup escaped, control characters shown, surrogates written out."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

# Control characters except tab and newline; characters that change the direction of text or are not seen; halves of
# surrogate pairs, which UTF-8 cannot hold.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: object) -> Markup:
    """Return a text as markup; what could not be seen is written as its code point."""
    pieces, begin = [], 0
    value = str(text).replace("\r\n", "\n")
    for found in _HIDDEN.finditer(value):
        pieces.append(escape(value[begin : found.start()]))
        pieces.append(Markup('<span class="code">U+{}</span>').format(f"{ord(found[0]):04X}"))
        begin = found.end()
    return Markup("").join([*pieces, escape(value[begin:])])


def plain(text: object) -> str:
    """Return a text for an attribute: as :func:`visible`, without markup and not escaped yet."""
    return _HIDDEN.sub(lambda found: f"[U+{ord(found[0]):04X}]", str(text))


def cut(text: str, most_bytes: int) -> tuple[Markup, int]:
    """Return the beginning of a text as markup of at most so many bytes, and how many characters are left out.

    Escaping makes some texts many times as long, so that the markup is measured, not the text.
    """
    kept = len(text)
    while len(shown := visible(text[:kept]).encode()) > most_bytes:
        kept = min(kept - 1, kept * most_bytes // len(shown))
    return visible(text[:kept]), len(text) - kept
