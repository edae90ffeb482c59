"""Reads a table of fine-tuning runs: their evaluation losses, and the indicator means of their training sets."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from numbers import Real
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from instructmining.errors import FittingError, InputError
from instructmining.errors.arguments import shown
from instructmining.errors.names import no_such, not_opened
from instructmining.reading.small_files import read_small
from instructmining.reading.values import utf8
from instructmining.types import COLUMNS, PREDICTION, known_columns

LOSS = "loss"
_LARGEST = 1e100  # largest value, whose squares can still be summed
LABELS = ("name", "run")  # columns that may hold the runs' names
INDICATORS = tuple(column for column in COLUMNS if column != PREDICTION)


class ArrowStream(Protocol):
    """A table that exports itself through Arrow's C interface: pandas, Polars, pyarrow and others."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Export the table as a PyCapsule of an Arrow stream."""


RunsSource: TypeAlias = str | Path | Mapping[str, Sequence[object] | NDArray[np.generic]] | ArrowStream


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs that a rule is estimated from."""

    labels: tuple[str, ...]  # (runs,) names in messages
    losses: NDArray[np.float64]  # (runs,) raw evaluation loss, above 0
    means: Mapping[str, NDArray[np.float64]]  # column → (runs,), in raw units
    origin: Mapping[str, str]  # the source, with the SHA-256 of the file or of the numbers

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self.losses)


@dataclass(frozen=True, slots=True)
class Table:
    """Unparsed cells: text from a CSV, values from memory."""

    name: str
    columns: Mapping[str, Sequence[object]]
    places: Sequence[str]  # (rows,) names of the rows in messages, such as "line 5"
    digest: str | None = None  # SHA-256 of the file

    def is_empty(self, column: str) -> bool:
        """Return whether a column has no value."""
        return all(is_empty(cell) for cell in self.columns[column])

    def numbers(self, column: str) -> NDArray[np.float64]:
        """Return the numbers of a column, (rows,).

        Raises:
            FittingError: a cell is empty or no finite number.
        """
        cells = zip(self.columns[column], self.places, strict=True)
        return np.array([_number(cell, f"{self.name}, {place}, column {column!r}") for cell, place in cells])

    def losses(self) -> NDArray[np.float64]:
        """Return the raw evaluation losses, (rows,).

        Raises:
            FittingError: a cell is no number above 0.
        """
        losses = self.numbers(LOSS)
        for place, loss in zip(self.places, losses, strict=True):
            if loss <= 0:
                raise FittingError(f"{self.name}, {place}, column {LOSS!r}: {loss:g}, wanted a raw loss above 0")
        return losses


def read_runs(source: RunsSource, terms: Sequence[str] | None = None) -> Runs:
    """Read runs, and check every number.

    Args:
        source: a CSV file, columns by name, or a table with the Arrow interface. The column ``loss`` is the raw
            evaluation loss; ``name`` or ``run`` labels the runs; the others are indicator means.
        terms: columns to take, of any name; by default all, which must then be indicators. Columns without values are
            ignored.

    Raises:
        InputError: the file cannot be read.
        FittingError: the table has no losses, or a cell is wrong; the message names line, column and value.
    """
    table = _table(source)
    if not table.places:
        raise FittingError(f"{table.name}: has no runs; wanted a header line and one line per run")
    if LOSS not in table.columns:
        raise FittingError(
            f"{table.name}: {no_such('column', LOSS, table.columns)}; add the evaluation loss of each run"
        )
    losses = table.losses()
    means = {column: table.numbers(column) for column in _considered(table, terms)}
    for column, values in {LOSS: losses, **means}.items():
        if not varies(values):
            raise FittingError(
                f"{table.name}, column {column!r}: is {values[0]:g} in every run, so nothing can be estimated from it"
                + ("" if column == LOSS else "; leave it out")
            )
    return Runs(_labels(table), losses, means, _origin(table, losses, means))


def varies(values: NDArray[np.float64]) -> bool:
    """Return whether values differ by more than rounding."""
    return bool(np.ptp(values) > 1e-12 * np.abs(values).max())


def _considered(table: Table, terms: Sequence[str] | None) -> list[str]:
    label = _label_column(table)
    columns = [column for column in table.columns if column not in (LOSS, label)]
    filled = [column for column in columns if not table.is_empty(column)]
    if terms is None:
        if unknown := [column for column in columns if column not in INDICATORS]:
            raise FittingError(
                f"{table.name}: not indicators: {', '.join(map(repr, unknown))}; rename them ({known_columns()}) "
                "or name the columns to take with --terms"
            )
        if not filled:
            raise FittingError(f"{table.name}: no column holds an indicator's means; wanted {', '.join(INDICATORS)}")
        return filled
    if not terms:
        raise FittingError("terms is empty; name at least one, or leave terms out to take every indicator")
    for number, term in enumerate(terms):
        if term in terms[:number]:
            raise FittingError(f"term {term!r} is named twice")
        if term not in columns:
            raise FittingError(f"{table.name}: {no_such('column of means', term, columns)}")
        if term not in filled:
            raise FittingError(f"{table.name}, column {term!r}: is empty in every run")
    return list(terms)


def _label_column(table: Table) -> str | None:
    labels = [column for column in LABELS if column in table.columns]
    if len(labels) > 1:
        raise FittingError(f"{table.name}: both {' and '.join(map(repr, labels))} label the runs; keep one")
    return labels[0] if labels else None


def _labels(table: Table) -> tuple[str, ...]:
    column = _label_column(table)
    if column is None:
        return tuple(table.places)
    cells = zip(table.columns[column], table.places, strict=True)
    return tuple(place if is_empty(cell) else str(cell).strip() for cell, place in cells)


def _number(cell: object, where: str) -> float:
    if is_empty(cell):
        raise FittingError(f"{where}: is empty in this run; fill it, or leave out the run or the column")
    value = math.nan
    if isinstance(cell, str) and "_" not in cell:  # float() accepts underscores, other tools do not
        with suppress(ValueError):
            value = float(cell)
    elif not isinstance(cell, bool) and isinstance(cell, Real):
        with suppress(OverflowError):
            value = float(cell)
    if not math.isfinite(value):
        raise FittingError(f"{where}: {cell if isinstance(cell, float) else repr(cell)}, wanted a finite number")
    if abs(value) > _LARGEST:
        raise FittingError(f"{where}: {value:g}, wanted a number between -{_LARGEST:g} and {_LARGEST:g}")
    return value


def is_empty(cell: object) -> bool:
    """Return whether a cell has no value."""
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _origin(table: Table, losses: NDArray[np.float64], means: Mapping[str, NDArray[np.float64]]) -> dict[str, str]:
    if table.digest is not None:
        return {"file": table.name, "sha256": table.digest, "sha256_of": "the file"}
    digest = hashlib.sha256()
    for column, values in {LOSS: losses, **means}.items():
        digest.update(column.encode() + b"\0" + values.astype("<f8").tobytes())
    kind = "for each column its name, a zero byte and the float64 values, little-endian; loss first"
    return {"file": table.name, "sha256": digest.hexdigest(), "sha256_of": kind}


def _table(source: RunsSource) -> Table:
    if isinstance(source, str | Path):
        return read_table(Path(source))
    if isinstance(source, Mapping):
        columns = {str(column): list(cells) for column, cells in source.items()}
    else:
        columns = _from_arrow(source)
    sizes = {column: len(cells) for column, cells in columns.items()}
    if len(set(sizes.values())) > 1:
        lengths = ", ".join(f"{column!r} {size}" for column, size in sizes.items())
        raise FittingError(f"runs: columns of different length: {lengths}")
    rows = next(iter(sizes.values()), 0)
    return Table("runs", columns, [f"run {number + 1}" for number in range(rows)])


def _from_arrow(stream: ArrowStream) -> dict[str, list[object]]:
    if not hasattr(stream, "__arrow_c_stream__"):
        raise FittingError(f"runs: {shown(stream)}, wanted a path, columns by name, or a table with __arrow_c_stream__")
    arrow = import_module("pyarrow")  # untyped, and slow to load; a CSV does not need it
    try:
        table = arrow.table(stream)
    except (arrow.ArrowException, TypeError) as error:
        raise FittingError(f"runs: not a table: {error}") from error
    # pandas adds such columns for an index that is not 0, 1, 2, …
    names = [name for name in table.column_names if not name.startswith("__index_level_")]
    _check_names("runs", names)
    return {name: table.column(name).to_pylist() for name in names}


def read_table(path: Path) -> Table:
    """Read a CSV file as it is.

    Raises:
        InputError: the file cannot be read.
        FittingError: it is no CSV with a header.
    """
    name = utf8(path.name)
    try:
        content = read_small(path)
    except OSError as error:
        raise InputError(not_opened(str(path), error)) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FittingError(f"{name}: not UTF-8: byte {content[error.start]:#04x} at byte {error.start}") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str]] = []
    places: list[str] = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append(cells)
                places.append(f"line {reader.line_num}")
    except csv.Error as error:
        raise FittingError(f"{name}, line {reader.line_num}: not CSV: {error}") from error
    if not rows:
        raise FittingError(f"{name}: is empty; wanted a header line and one line per run")
    names = [cell.strip() for cell in rows[0]]
    _check_names(name, names)
    for cells, place in zip(rows[1:], places[1:], strict=True):
        if len(cells) != len(names):
            raise FittingError(f"{name}, {place}: {len(cells)} cells, the header has {len(names)}")
    columns = {name: [cells[at] for cells in rows[1:]] for at, name in enumerate(names)}
    return Table(name, columns, places[1:], hashlib.sha256(content).hexdigest())


def _check_names(where: str, names: Sequence[str]) -> None:
    seen: set[str] = set()
    for number, name in enumerate(names):
        if not name:
            raise FittingError(f"{where}: column {number + 1} has no name")
        if name in seen:
            raise FittingError(f"{where}: column {name!r} occurs twice")
        seen.add(name)
        if len(names) == 1 and any(separator in name for separator in ";\t"):
            raise FittingError(f"{where}: wanted cells separated by commas; the header is {name!r}")
