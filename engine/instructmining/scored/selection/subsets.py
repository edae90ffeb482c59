"""Some rows of a scored file: in the file's order or another, as they were before scoring, or at random."""

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
    """The rows of these numbers, ascending; nothing is read behind the last of them."""
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
    """The rows of these numbers in the order given; they wait in a temporary file, the source is read once.

    Yields:
        The line on which a row begins, and its content.

    Raises:
        OutputError: the temporary folder does not take them.
    """
    ascending = np.argsort(rows, kind="stable")
    spans = np.zeros((len(rows), 3), dtype=np.int64)  # where it waits, how long it is, its line
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
    """Some of the candidates at random, each set of that size as likely as another; ascending.

    They are those with the smallest of random 64-bit keys, one for each row of the file; so with one seed a smaller
    subset is a part of a larger one. The keys are PCG64's own, which NumPy keeps the same from version to version
    (NEP 19), unlike its methods for choosing.

    Args:
        candidates: row numbers, ascending.
        count: how many, at most all.
        seed: of the keys.
    """
    if not len(candidates):
        return candidates
    keys = np.random.PCG64(seed).random_raw(int(candidates[-1]) + 1)[candidates]
    return np.sort(candidates[np.argsort(keys, kind="stable")[:count]])


def without_scores(row: SourceRow, prefix: str = "") -> bytes:
    """The row as it was before scoring."""
    names = set(added_names(SCORE_COLUMNS, prefix))
    return without(row.raw, row.fields, names) if names & row.fields.keys() else row.raw
