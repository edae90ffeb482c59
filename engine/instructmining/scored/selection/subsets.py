"""Reads some rows of a scored file: in file order or another, at random, or without scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from instructmining.reading.json_members import without
from instructmining.scored.scored_file import ScoredRows
from instructmining.types import SCORE_COLUMNS, SourceRow
from instructmining.writing.run_writer import added_names
from instructmining.writing.temporary import in_temporary_folder, temporary_file


def in_file_order(source: ScoredRows, rows: NDArray[np.int64]) -> Iterator[SourceRow]:
    """Yield the rows of these ascending numbers; reads nothing after the last of them."""
    wanted = map(int, rows)
    next_wanted = next(wanted, None)
    if next_wanted is None:
        return
    for number, row in enumerate(source.rows()):
        if number == next_wanted:
            yield row
            next_wanted = next(wanted, None)
            if next_wanted is None:
                return


def in_order(
    source: ScoredRows, rows: NDArray[np.int64], content: Callable[[SourceRow], bytes]
) -> Iterator[tuple[int, bytes]]:
    """Yield the rows of these numbers in the order given; reads the source once, and keeps rows in a temporary file.

    Yields:
        The line on which a row begins, and its content.

    Raises:
        OutputError: the temporary folder refuses them.
    """
    ascending = np.argsort(rows, kind="stable")
    spans = np.zeros((len(rows), 3), dtype=np.int64)  # offset in the temporary file, size, line
    with temporary_file() as waiting:
        at = 0
        for place, row in zip(ascending, in_file_order(source, rows[ascending]), strict=True):
            line = content(row)
            spans[place] = at, len(line), row.line
            with in_temporary_folder():
                at += waiting.write(line)
        for begin, size, number in spans:
            with in_temporary_folder():
                waiting.seek(begin)
                line = waiting.read(size)
            yield int(number), line


def random_rows(candidates: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Draw some of the candidates at random, every subset of that size with equal probability; ascending.

    These are the candidates with the smallest random 64-bit keys, one per row of the file. So with the same seed a
    smaller draw is a part of a larger one. The keys are PCG64's raw output, which NumPy keeps the same in all versions
    (NEP 19), unlike its sampling methods.

    Args:
        candidates: row numbers, ascending.
        count: number of rows to draw, at most all.
        seed: seed of the keys.
    """
    if not len(candidates):
        return candidates
    keys = np.random.PCG64(seed).random_raw(int(candidates[-1]) + 1)[candidates]
    return np.sort(candidates[np.argsort(keys, kind="stable")[:count]])


def without_scores(row: SourceRow, prefix: str = "") -> bytes:
    """Return the row's bytes as they were before scoring."""
    names = set(added_names(SCORE_COLUMNS, prefix))
    return without(row.raw, row.fields, names) if names & row.fields.keys() else row.raw
