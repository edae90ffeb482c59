"""The encoding of delimited text: how its lines end and how they become text."""

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
        codec: Python's name.
        shown: as the user named it.
        mark: the byte order mark that a file may begin with.
        newline: the bytes of one.
    """

    codec: str
    shown: str
    mark: bytes
    newline: bytes

    @property
    def is_default(self) -> bool:
        """Whether it is UTF-8."""
        return self.codec == "utf-8"

    def readline(self, stream: io.BufferedReader, most: int) -> bytes:
        """Read up to and with the next newline, or some bytes more than ``most`` where it is further away."""
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
        """The bytes of a line or lines without the line break at the end."""
        return text.removesuffix(self.newline).removesuffix("\r".encode(self.codec))


def wide_by_head(head: bytes) -> str | None:
    """UTF-16 or UTF-32, where the first bytes are the byte order mark of one."""
    for name, orders in reversed(_BOMS.items()):  # that of UTF-32 begins with that of UTF-16
        if head.startswith(tuple(_BOM_OF[order] for order in orders)):
            return name.upper()
    return None


def encoding_of(path: str, name: str | None, head: bytes) -> Encoding:
    """The encoding of a file.

    Args:
        path: how messages call it.
        name: as it was asked for; None is UTF-8.
        head: the first bytes of the file.

    Raises:
        InputError: the file is UTF-16 or UTF-32 and nothing else was asked for, or it has no byte order mark where it
            needs one.
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
