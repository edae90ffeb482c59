"""Reads files as examples: joins readers and formats, and passes bad rows to a callback."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import cast

from instructmining.errors import InputError, RowError
from instructmining.errors.arguments import check_call, check_type
from instructmining.reading.blocks import Blocks, windows_within
from instructmining.reading.example_reader import (
    ExampleReader,
    log,
    raw_of,
)
from instructmining.reading.formats import FieldOptions, FormatName
from instructmining.reading.objects import is_objects
from instructmining.reading.options import ReadOptions
from instructmining.reading.rows import Source, Sources, first_of, open_rows
from instructmining.reading.scores import score_fields
from instructmining.reading.sources import expand
from instructmining.types import (
    Example,
    InputWindow,
    Reject,
    SourceRow,
)

_USUAL = ReadOptions()


def read_examples(
    source: Sources,
    *,
    format: FormatName | None = None,  # noqa: A002 - the field's word, and the option's
    fields: FieldOptions | None = None,
    limit: int | None = None,
    columns: Sequence[str] = (),
    prefix: str = "",
    options: ReadOptions = _USUAL,
    on_reject: Callable[[Reject], None] | None = None,
) -> ExampleReader:
    """Read instruction data as a stream.

    Rows that ``score`` wrote are read without their scores, which are in ``Example.scores``.

    Args:
        source: one or more of: files of JSON lines, JSON arrays, CSV or TSV, also .gz or .zst; files of Parquet or
            Arrow; folders and patterns of files, see :func:`~instructmining.reading.sources.expand`; "-" for standard
            input; tables in memory: anything with ``__arrow_c_stream__`` (pandas, Polars, pyarrow) and splits of
            ``datasets``; or rows in memory: dicts as in a JSON file, in a list or an iterator.
        format: format of the rows; by default detected in each file. Short for ``FieldOptions(format=…)``.
        fields: how the fields of rows are read.
        limit: rows to read, with bad ones.
        columns: names of columns that will be added; a row must not have them already.
        prefix: prefix of the columns that ``score`` wrote, where rows were scored before.
        options: how rows are read.
        on_reject: receives rows that hold no example; without it the first one raises.

    Raises:
        InputError: a file is missing, a folder has none, the kind of a file is not supported, the format is not
            known, or an argument has the wrong type.
        RowError: while reading, at the first bad row, where ``on_reject`` is None.
    """
    check_type("limit", limit, (int, NoneType), wanted="a number of rows or None", error=InputError)
    check_type("prefix", prefix, str, wanted="text", error=InputError)
    check_type("columns", columns, (list, tuple), wanted="a list of names", error=InputError)
    check_type("fields", fields, (FieldOptions, NoneType), wanted="FieldOptions or None", error=InputError)
    check_type("options", options, ReadOptions, wanted="ReadOptions", error=InputError)
    check_call("on_reject", on_reject, error=InputError)
    files, partitioned = _files(_sources(source))
    options = options.below(partitioned)
    readers = [open_rows(file, options) for file in files]
    return ExampleReader(
        readers,
        fields or FieldOptions(format),
        score_fields(prefix),
        Blocks(readers, options.block_bytes),
        limit=limit,
        taken=frozenset(columns),
        on_reject=on_reject or _raise,
    )


def _sources(source: Sources) -> list[Source]:
    if isinstance(source, Sequence) and not isinstance(source, (str, bytes)) and not is_objects(source):
        return cast(list[Source], list(source))
    return [source]


def first_fields(
    sources: Sequence[Source], rows: int = 4096, *, options: ReadOptions = _USUAL
) -> list[Mapping[str, object]]:
    """Return the fields of the first good rows of all sources together, by default of the largest window.

    Raises:
        InputError: a source is missing or cannot be read.
    """
    good = (row for source in sources for row in open_rows(source, options) if isinstance(row, SourceRow))
    return [row.fields for row in first_of(good, rows, raw_of)]


def _files(sources: Iterable[Source]) -> tuple[list[Source], list[str]]:
    """Return the sources with folders and patterns expanded, and the folders below which folders give columns."""
    every: list[Source] = []
    partitioned: list[str] = []
    for source in sources:
        if not isinstance(source, (str, Path)):
            every.append(source)
            continue
        files = expand([source])
        for skipped in files.skipped:
            log.info("%s", skipped)
        every += files.paths
        partitioned += files.partitioned
    return every, partitioned


def windows_of(examples: Iterable[Example], rows: int) -> Iterator[InputWindow]:
    """Group examples in windows of so many rows."""
    for taken in windows_within(examples, rows):
        yield InputWindow(taken)


def _raise(reject: Reject) -> None:
    raise RowError(f"{reject.source}, line {reject.line}: {reject.reason}")
