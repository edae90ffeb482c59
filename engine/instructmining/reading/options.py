"""Options of reading that the name and the first bytes of a file do not decide."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from types import NoneType
from typing import Self

from instructmining.errors import InputError
from instructmining.errors.arguments import check_type

MAX_ROW_BYTES = 64 * 2**20
BLOCK_BYTES = 8 * 2**20
_TABS = ("tab", r"\t")


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Options that hold for all files of an input.

    Attributes:
        max_row_bytes: a longer row (uncompressed) is a reject that keeps its first bytes.
        delimiter: delimiter of delimited text, one character or "tab"; None uses the one of the suffix. If given,
            files without a known suffix are read as delimited text.
        encoding: encoding of delimited text, by its name in Python; None means UTF-8.
        block_bytes: windows of rows end at multiples of this in a file's uncompressed text, and of a 1024th of it in
            rows of a table; an input can be cut there into parts.
        partitioned: folders below which a folder ``name=value`` gives the rows of its files a column, as
            :func:`~instructmining.reading.sources.expand` returns them.
    """

    max_row_bytes: int = MAX_ROW_BYTES
    delimiter: str | None = None
    encoding: str | None = None
    block_bytes: int = BLOCK_BYTES
    partitioned: tuple[str, ...] = ()

    def below(self, folders: Iterable[str]) -> Self:
        """Return the same options, with further folders in :attr:`partitioned`."""
        every = tuple(sorted({*self.partitioned, *folders}))
        return self if every == self.partitioned else replace(self, partitioned=every)

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            InputError: the delimiter is not one character, or the encoding is not known.
        """
        check = partial(check_type, error=InputError)
        check("max_row_bytes", self.max_row_bytes, int, wanted="a number of bytes")
        check("block_bytes", self.block_bytes, int, wanted="a number of bytes")
        if self.block_bytes < 1:
            raise InputError(f"block_bytes is {self.block_bytes}; wanted at least 1")
        check("delimiter", self.delimiter, (str, NoneType), wanted="one character, or None")
        check("encoding", self.encoding, (str, NoneType), wanted="a name such as latin-1, or None")
        if self.delimiter in _TABS:
            object.__setattr__(self, "delimiter", "\t")
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n\0'):
            raise InputError(f"delimiter {self.delimiter!r}: wanted one character, such as ; or |, or tab")
        if self.encoding is not None:
            _check_encoding(self.encoding)


def _check_encoding(name: str) -> None:
    problem = f"encoding {name!r} is not known; wanted a name such as latin-1, cp1252 or utf-16"
    try:
        newline = "\n".encode(name)
    except (LookupError, ValueError) as error:
        raise InputError(problem) from error
    if newline.strip(b"\0\xff\xfe\xef\xbb\xbf") != b"\n":
        raise InputError(f"encoding {name!r} is not read by this version; convert the file to UTF-8")
