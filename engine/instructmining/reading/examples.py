"""Files to examples: readers and formats joined, bad rows handed to whoever takes them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import cast

from instructmining.errors import InputError, RowError
from instructmining.reading.formats import FormatName, detect, format_name, parse
from instructmining.reading.options import ReadOptions
from instructmining.reading.rows import RowReader, Source, open_rows
from instructmining.reading.sources import expand
from instructmining.records import Example, InputWindow, Position, Reject, RowOrReject, SourceRow

DETECTION_ROWS = 20  # a format shows in the first rows of a file, or the file is refused
_USUAL = ReadOptions()
_log = logging.getLogger(__name__)


class ExampleReader:
    """Examples of one or more files, in order; counts what it passed.

    Attributes:
        rows: rows met so far, bad ones included, blank lines not.
        rejected: bad rows among them.
        blank: blank lines skipped so far.
        formats: the format of each file, as it was detected or given.
    """

    def __init__(
        self,
        readers: Sequence[RowReader],
        name: FormatName | None,
        limit: int | None,
        taken: frozenset[str],
        on_reject: Callable[[Reject], None],
    ) -> None:
        """Use :func:`read_examples`."""
        self.rows = 0
        self.rejected = 0
        self.blank = 0
        self.formats: dict[str, FormatName] = {}
        self._readers = readers
        self._begin: Position | None = None
        self._at = (0, 0, 0, 0)  # file, line and offset of the row met last, and the blank lines before it
        self._seen = (0, 0.0)  # rows, and bytes of all files up to the end of the last of them
        self._format = name
        self._limit = limit
        self._taken = taken
        self._on_reject = on_reject

    @property
    def share_read(self) -> float | None:
        """Share of the files' bytes up to the end of the last row that was counted, 0..1; None where it is not known.

        It may be asked for in any thread.
        """
        total = self._bytes_total
        if total is None:
            return None
        return self._seen[1] / total if total else 1.0

    @property
    def rows_expected(self) -> float | None:
        """Rows of all files, by those that were counted and their share; None where nothing tells it yet."""
        rows, bytes_read = self._seen
        total = self._bytes_total
        if not total or not bytes_read:
            return None
        return rows * total / bytes_read

    @property
    def _bytes_total(self) -> int | None:
        return _sum(reader.bytes_total for reader in self._readers)

    def begin_after(self, position: Position) -> None:
        """Go on behind a position that an earlier reader of the same files gave.

        Raises:
            InputError: the position is in standard input.
        """
        self.rows, self.rejected, self.blank = position.rows, position.rejected, position.blank
        self.formats = {path: cast(FormatName, name) for path, name in position.formats.items()}
        self._readers[position.file].begin_at(position.line, position.offset)
        self._begin = position

    def __iter__(self) -> Iterator[Example]:
        """Yield the examples; bad rows go to who takes them.

        Raises:
            InputError: a file cannot be opened, is in no known format, or has a field that a column would hide.
        """
        for item in self._items():
            if isinstance(item, Example):
                yield item
            else:
                self._on_reject(item)

    def windows(self, rows: int) -> Iterator[InputWindow]:
        """Yield windows of so many rows, good and bad in their order, each with the position of its last.

        Raises:
            InputError: as when the examples are asked for.
        """
        items = self._items()
        while taken := list(islice(items, rows)):
            file, line, offset, blank = self._at
            yield InputWindow(taken, Position(file, line, offset, self.rows, self.rejected, blank, dict(self.formats)))

    def _items(self) -> Iterator[Example | Reject]:
        first_file = self._begin.file if self._begin is not None else 0
        for file, reader in enumerate(self._readers[first_file:], first_file):
            if self._limit is not None and self.rows >= self._limit:
                return
            yield from self._of_file(file, reader)

    def _of_file(self, file: int, reader: RowReader) -> Iterator[Example | Reject]:
        blank_before = self.blank
        before = _sum(other.bytes_total for other in self._readers[:file]) or 0
        rows = ((row, blank_before + reader.blank, before + reader.bytes_read) for row in reader)
        first: list[tuple[RowOrReject, int, float]] = []
        if self._begin is not None and file == self._begin.file:
            _, _, bytes_read = next(rows, (None, 0, before))  # the row of the position is done
            self._seen = (self.rows, bytes_read)
            name = self.formats.get(reader.path)
        else:
            most = DETECTION_ROWS if self._limit is None else min(DETECTION_ROWS, self._limit)
            first = list(islice(rows, most))
            name = self._detected(reader, [row for row, _, _ in first if isinstance(row, SourceRow)])
        for row, self.blank, bytes_read in chain(first, rows):
            self.rows += 1
            self._seen = (self.rows, bytes_read)
            self._at = (file, row.line, row.offset, self.blank)
            item = self._example(row, name)
            if isinstance(item, Reject):
                self.rejected += 1
            yield item
            if self.rows == self._limit:
                return
        self.blank = blank_before + reader.blank
        self._seen = (self.rows, before + (reader.bytes_total or 0))

    def _detected(self, reader: RowReader, good: Sequence[SourceRow]) -> FormatName | None:
        """The format of a file, by its first good rows.

        Raises:
            InputError: none that is known, or a field that a column would hide.
        """
        for row in good:
            if hidden := self._taken & row.fields.keys():
                raise InputError(
                    f"{row.source}, line {row.line}: the row has a field {min(hidden)!r}, which is also a column "
                    "of ours (were the rows scored before?); give --prefix to name the columns otherwise"
                )
        name = self._format or (detect(good) if good else None)
        if name is not None:
            self.formats[reader.path] = name
        return name

    def _example(self, row: RowOrReject, name: FormatName | None) -> Example | Reject:
        if isinstance(row, Reject):
            return row
        try:
            if not self._taken.isdisjoint(row.fields):
                hidden = self._taken & row.fields.keys()
                raise RowError(f"field {min(hidden)!r} is also a column of ours; --prefix names the columns otherwise")
            return parse(row, name or detect([row]))
        except (RowError, InputError) as error:
            return Reject(row.source, row.line, row.offset, str(error), row.raw)


def read_examples(
    source: Source | Sequence[Source],
    *,
    format: FormatName | None = None,  # noqa: A002 - the field's word, and the option's
    limit: int | None = None,
    columns: Sequence[str] = (),
    options: ReadOptions = _USUAL,
    on_reject: Callable[[Reject], None] | None = None,
) -> ExampleReader:
    """Read instruction data, streaming.

    Args:
        source: one or more of: files of JSON lines, JSON arrays, CSV or TSV, also .gz or .zst; files of Parquet or
            Arrow; folders and patterns of files, see :func:`~instructmining.reading.sources.expand`; "-" for standard
            input; tables in memory, which are whatever has ``__arrow_c_stream__`` (pandas, Polars, pyarrow) and the
            splits of ``datasets``.
        format: of the rows; by default it is detected in each file.
        limit: rows to take, bad ones included.
        columns: names that will be added to the rows; a row must not have them already.
        options: how rows are read.
        on_reject: takes the rows that hold no example; without it the first one raises.

    Raises:
        InputError: a file is missing, a folder has none, nothing here reads its kind, or the format is not known.
        RowError: while reading, at the first bad row, when nobody takes rejects.
    """
    several = [source] if isinstance(source, str) or not isinstance(source, Sequence) else list(source)
    readers = [open_rows(file, options) for one in several for file in _files(one)]
    return ExampleReader(readers, format_name(format), limit, frozenset(columns), on_reject or _raise)


def _files(source: Source) -> Sequence[Source]:
    if not isinstance(source, (str, Path)):
        return [source]
    files = expand([source])
    for skipped in files.skipped:
        _log.info("%s", skipped)
    return files.paths


def _sum(sizes: Iterable[int | None]) -> int | None:
    """The sum; None where one is not known."""
    every = list(sizes)
    return None if None in every else sum(size for size in every if size is not None)


def input_digest(path: str) -> dict[str, object]:
    """What tells a file from another: its path as given, size and SHA-256; of standard input the path alone.

    Raises:
        InputError: it cannot be read.
    """
    if path == "-":
        return {"path": path}
    try:
        with Path(path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return {"path": path, "bytes": file.tell(), "sha256": digest}
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def windows_of(examples: Iterable[Example], rows: int) -> Iterator[InputWindow]:
    """Examples from anywhere, so many together."""
    source = iter(examples)
    while taken := list(islice(source, rows)):
        yield InputWindow(taken)


def _raise(reject: Reject) -> None:
    raise RowError(f"{reject.source}, line {reject.line}: {reject.reason}")
