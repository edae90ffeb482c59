"""The encoding of delimited text: how lines end and how bytes become text."""

from __future__ import annotations

import codecs
import io
from dataclasses import dataclass

from instructmining.errors import InputError

_BOMS = {"utf-16": ("utf-16-le", "utf-16-be"), "utf-32": ("utf-32-le", "utf-32-be")}
_BOM_OF = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@dataclass(frozen=True, slots=True)
class Encoding:
    """An encoding whose byte order is known.

    Attributes:
        codec: Python's name of the encoding.
        shown: the name that the user gave.
        mark: byte order mark that a file may begin with.
        newline: bytes of a newline.
    """

    codec: str
    shown: str
    mark: bytes
    newline: bytes

    @property
    def is_default(self) -> bool:
        """Whether the encoding is UTF-8."""
        return self.codec == "utf-8"

    def readline(self, stream: io.BufferedReader, most: int) -> bytes:
        """Read through the next newline, or slightly more than ``most`` bytes where it is further away."""
        line = stream.readline(most)
        width = len(self.newline)
        while width > 1 and line:
            line += stream.read(-len(line) % width)  # a line break's byte may stand inside a character
            if line.endswith(self.newline) or len(line) >= most:
                break
            part = stream.readline(most - len(line))
            line += part
            if not part:
                break
        return line

    def without_newline(self, text: bytes) -> bytes:
        """Strip the line break at the end."""
        return text.removesuffix(self.newline).removesuffix("\r".encode(self.codec))


def wide_by_head(head: bytes) -> str | None:
    """Return UTF-16 or UTF-32 where the first bytes are its byte order mark."""
    for name, orders in reversed(_BOMS.items()):  # the mark of UTF-32 begins with the one of UTF-16
        if head.startswith(tuple(_BOM_OF[order] for order in orders)):
            return name.upper()
    return None


def encoding_of(path: str, name: str | None, head: bytes) -> Encoding:
    """Return the encoding of a file.

    Args:
        path: path in messages.
        name: the name that the user gave; None means UTF-8.
        head: first bytes of the file.

    Raises:
        InputError: the file is UTF-16 or UTF-32 and no encoding was given, or it lacks a byte order mark that it
            needs.
    """
    codec = codecs.lookup(name or "utf-8").name.removesuffix("-sig")
    if codec in _BOMS:
        codec = next((order for order in _BOMS[codec] if head.startswith(_BOM_OF[order])), "")
        if not codec and head:
            raise InputError(f"{path}: has no byte order mark; give --encoding {name}-le or {name}-be")
        codec = codec or "utf-8"
    elif codec == "utf-8" and (wide := wide_by_head(head)) is not None:
        raise InputError(f"{path}: is {wide}; give --encoding {wide.lower()}")
    return Encoding(codec, name or "UTF-8", _BOM_OF.get(codec, b""), "\n".encode(codec))
