"""Keep the best: original rows of a scored file in ascending predicted loss."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from instructmining.errors import OutputError, SelectionError
from instructmining.records import COLUMNS, PREDICTION, SourceRow
from instructmining.scored import ScoredRows
from instructmining.writers import SUFFIXES, added_names, compressed


@dataclass(frozen=True, slots=True)
class Selection:
    """What was kept."""

    rows: int  # rows in the scored file
    without_value: int  # rows left out because the column is null there
    kept: int
    worst: float | None  # the column's value in the last row kept


@dataclass(frozen=True, slots=True)
class Choice:
    """How many to keep: exactly one of the three."""

    top: int | None = None  # rows
    fraction: float | None = None  # of the rows that have a value, 0..1, rounded to the nearest row
    max_loss: float | None = None  # keep rows whose value is at most this

    def __post_init__(self) -> None:
        """Check that exactly one is given, within its range.

        Raises:
            SelectionError: none or several are given, or one is out of range.
        """
        if sum(value is not None for value in (self.top, self.fraction, self.max_loss)) != 1:
            raise SelectionError("give exactly one of top, fraction and max_loss")
        if self.top is not None and self.top < 1:
            raise SelectionError(f"top is {self.top}, wanted at least 1")
        if self.max_loss is not None and math.isnan(self.max_loss):
            raise SelectionError("max_loss is nan, wanted a number")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise SelectionError(f"fraction is {self.fraction}, wanted more than 0 and at most 1")

    def count(self, ordered: NDArray[np.float64]) -> int:
        """How many of the ascending values are kept."""
        if self.top is not None:
            return min(self.top, len(ordered))
        if self.fraction is not None:
            return math.floor(self.fraction * len(ordered) + 0.5)
        return int(np.searchsorted(ordered, np.float64(self.max_loss or 0.0), side="right"))


def select(
    scored: str | Path,
    out: str | Path,
    choice: Choice,
    *,
    by: str = PREDICTION,
    prefix: str = "",
    descending: bool = False,
    keep_scores: bool = False,
    overwrite: bool = False,
) -> Selection:
    """Write the rows with the smallest values, ascending; equal values keep their input order.

    The file is read twice; memory holds one number a row, not the rows.

    Args:
        scored: a file that ``score`` wrote.
        out: .jsonl, .jsonl.gz or .jsonl.zst.
        choice: how many to keep.
        by: the column to order by.
        prefix: what ``score`` put before its columns' names.
        descending: the largest values first, for columns where more is better.
        keep_scores: keep the added columns; otherwise rows are as they were before scoring, byte for byte.
        overwrite: replace OUT.

    Raises:
        InputError: the scored file cannot be read.
        SelectionError: a line is not a row, or no row has the column.
        OutputError: OUT exists, has another suffix, or cannot be written.
    """
    target = Path(out)
    if not target.name.endswith(SUFFIXES):
        raise OutputError(f"{target}: wanted a name ending in {', '.join(SUFFIXES)}")
    if target.exists() and target.samefile(scored):
        raise OutputError(f"{target}: is the scored file itself; name another file")
    if target.exists() and not overwrite:
        raise OutputError(f"{target}: exists; give --overwrite to replace it")
    source = ScoredRows(scored, prefix=prefix)
    values = np.concatenate([np.empty(0), *(block.columns[by] for block in source.blocks([by]))])
    known = np.flatnonzero(~np.isnan(values))
    if len(values) and not len(known):
        raise SelectionError(f"{scored}: no row has a number in column {prefix + by!r}")
    if descending and choice.max_loss is not None:
        raise SelectionError("max_loss keeps the smallest values and does not go with descending")
    order = known[np.argsort(-values[known] if descending else values[known], kind="stable")]
    order = order[: choice.count(values[order])]
    partial = Path(f"{target}.partial")
    try:
        with partial.open("wb") as file:
            stream = compressed(file, target.name)
            for line in _in_order(source, order, keep_scores, prefix):
                stream.write(line + b"\n")
            if stream is not file:
                stream.close()
        partial.replace(target)
    except OSError as error:
        raise OutputError(f"{target}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    worst = float(values[order[-1]]) if len(order) else None
    return Selection(len(values), len(values) - len(known), len(order), worst)


def _in_order(source: ScoredRows, order: NDArray[np.int64], keep_scores: bool, prefix: str) -> Iterator[bytes]:
    """The chosen rows' bytes in the order given; they wait in a temporary file."""
    place = {int(row): number for number, row in enumerate(order)}
    spans = np.zeros((len(order), 2), dtype=np.int64)
    with tempfile.TemporaryFile() as waiting:
        for number, row in enumerate(source.rows()):
            if number in place:
                line = row.raw if keep_scores else without_scores(row, prefix)
                spans[place[number]] = waiting.tell(), len(line)
                waiting.write(line)
        for begin, size in spans.tolist():
            waiting.seek(begin)
            yield waiting.read(size)


def without_scores(row: SourceRow, prefix: str = "") -> bytes:
    """The row as it was before scoring: the columns stand behind its own fields, where they were spliced."""
    names = set(added_names(COLUMNS, prefix))
    added = [name for name in row.fields if name in names]
    if not added:
        return row.raw
    original = {name: value for name, value in row.fields.items() if name not in names}
    at = len(row.raw)
    while (at := row.raw.rfind(b',"' + added[0].encode() + b'":', 0, at)) > 0:
        line = row.raw[:at] + b"}"
        with suppress(orjson.JSONDecodeError):
            if orjson.loads(line) == original:
                return line
    return orjson.dumps(original)
