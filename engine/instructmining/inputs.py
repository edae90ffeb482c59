"""Files to examples: readers and formats joined, bad rows handed to whoever takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from instructmining.errors import InputError, RowError
from instructmining.formats import FormatName, detect, format_name, parse
from instructmining.readers import MAX_ROW_BYTES, RowOrReject, RowReader
from instructmining.records import Example, Reject, SourceRow

DETECTION_ROWS = 20  # a format shows in the first rows of a file, or the file is refused


class ExampleReader:
    """Examples of one or more files, in order; counts what it passed.

    Attributes:
        rows: rows met so far, bad ones included, blank lines not.
        rejected: bad rows among them.
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
        self.formats: dict[str, FormatName] = {}
        self._readers = readers
        self._format = name
        self._limit = limit
        self._taken = taken
        self._on_reject = on_reject

    @property
    def blank(self) -> int:
        """Blank lines skipped so far."""
        return sum(reader.blank for reader in self._readers)

    @property
    def share_read(self) -> float | None:
        """Share of the files' bytes that were read, 0..1; None where the size is not known."""
        sizes = [reader.bytes_total for reader in self._readers]
        if None in sizes:
            return None
        total = sum(size for size in sizes if size is not None)
        return sum(reader.bytes_read for reader in self._readers) / total if total else 1.0

    def __iter__(self) -> Iterator[Example]:
        """Yield the examples.

        Raises:
            InputError: a file cannot be opened, is in no known format, or has a field that a column would hide.
        """
        for reader in self._readers:
            if self._limit is not None and self.rows >= self._limit:
                return
            rows = iter(reader)
            first = list(islice(rows, DETECTION_ROWS if self._limit is None else min(DETECTION_ROWS, self._limit)))
            good = [row for row in first if isinstance(row, SourceRow)]
            for row in good:
                if hidden := self._taken & row.fields.keys():
                    raise InputError(
                        f"{row.source}, line {row.line}: the row has a field {min(hidden)!r}, which is also a column "
                        "of ours (were the rows scored before?); give --prefix to name the columns otherwise"
                    )
            name = self._format or (detect(good) if good else None)
            if name is not None:
                self.formats[reader.path] = name
            for row_or_reject in chain(first, rows):
                if self._limit is not None and self.rows >= self._limit:
                    return
                self.rows += 1
                example = self._example(row_or_reject, name)
                if isinstance(example, Reject):
                    self.rejected += 1
                    self._on_reject(example)
                else:
                    yield example

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
    paths: str | Path | Sequence[str | Path],
    *,
    format: FormatName | None = None,  # noqa: A002 - the field's word, and the option's
    limit: int | None = None,
    columns: Sequence[str] = (),
    max_row_bytes: int = MAX_ROW_BYTES,
    on_reject: Callable[[Reject], None] | None = None,
) -> ExampleReader:
    """Read instruction data, streaming.

    Args:
        paths: files of JSON lines or JSON arrays, also .gz or .zst, or "-" for standard input.
        format: of the rows; by default it is detected in each file.
        limit: rows to take, bad ones included.
        columns: names that will be added to the rows; a row must not have them already.
        max_row_bytes: a longer row is rejected.
        on_reject: takes the rows that hold no example; without it the first one raises.

    Raises:
        InputError: a file is missing or a folder, or the format is not known.
        RowError: while reading, at the first bad row, when nobody takes rejects.
    """
    several = [paths] if isinstance(paths, (str, Path)) else list(paths)
    readers = [RowReader(str(path), max_row_bytes=max_row_bytes) for path in several]
    return ExampleReader(readers, format_name(format), limit, frozenset(columns), on_reject or _raise)


def _raise(reject: Reject) -> None:
    raise RowError(f"{reject.source}, line {reject.line}: {reject.reason}")
