"""Ranks the rows of a scored file, and decides for each whether and why it is kept or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instructmining.errors import InputError, RowError, SelectionError
from instructmining.reading.parsing import RowParser
from instructmining.reading.values import loads
from instructmining.scored.scored_file import BLOCK_ROWS, LENGTHS, ScoredRows
from instructmining.scored.selection.near_duplicates import BLOCK, Distinct, KeptVectors
from instructmining.scored.selection.options import SelectionOptions
from instructmining.scored.selection.qualifying import Columns, Groups, Verdict
from instructmining.scored.selection.subsets import in_order
from instructmining.types import Example, SourceRow


@dataclass(frozen=True, slots=True)
class NearestKept:
    """For each near duplicate, the nearest row that was kept before it."""

    rows: NDArray[np.int64]  # (rows,) numbers of the nearest rows, −1 for rows that are no near duplicates
    distances: NDArray[np.float64]  # (rows,) distances to them, NaN likewise


@dataclass(frozen=True, slots=True)
class Ranking:
    """The verdict on every row, and the order of the candidates."""

    values: NDArray[np.float64]  # (rows,) the column to order by, NaN where it is null
    verdicts: NDArray[np.int16]  # (rows,) values of :class:`Verdict`
    order: NDArray[np.int64]  # (candidates,) row numbers, best first
    kept: NDArray[np.int64]  # (kept,) row numbers, best first
    groups: Groups | None
    room: Sequence[int]  # most rows of each group; without groups, one number for all rows
    nearest: NearestKept | None
    tokens: int | None  # of the rows kept, if a budget was given

    def counts_of(self, rows: NDArray[np.int64]) -> list[int]:
        """Count rows by group, in the order of the groups; there are groups."""
        assert self.groups is not None
        found: list[int] = np.bincount(self.groups.of_row[rows], minlength=len(self.groups.names)).tolist()
        return found

    def left_out(self, choice: SelectionOptions, value: str) -> dict[str, int]:
        """Count the rows left out by reason; ``value`` is the name of the column to order by."""
        found, rows = np.unique(self.verdicts, return_counts=True)
        return by_reason(dict(zip(found.tolist(), rows.tolist(), strict=True)), choice, value)


def by_reason(counts: Mapping[int, int], choice: SelectionOptions, value: str) -> dict[str, int]:
    """Name the reasons for which rows are left out.

    Args:
        counts: verdict → rows, ascending by verdict.
        choice: which rows to keep.
        value: name of the column to order by.
    """
    names = {
        Verdict.NO_VALUE: f"{value} is null",
        Verdict.NO_LENGTH: f"{' or '.join(LENGTHS)} is null",
        Verdict.NO_QUOTA: "the group has no quota",
        Verdict.ABOVE: f"{value} is more than {choice.max_loss}",
        Verdict.FULL: "below the cut" if choice.group_by is None else "the group is full",
        Verdict.OVER_BUDGET: "beyond the token budget",
        Verdict.NEAR: "near duplicate of a row that was kept",
    }
    reasons: Counter[str] = Counter()
    for verdict, count in counts.items():
        if verdict >= Verdict.FIRST_CONDITION:
            number, is_null = divmod(verdict - Verdict.FIRST_CONDITION, 2)
            condition = choice.conditions[number]
            reasons[f"{condition.column} is null" if is_null else f"fails {condition}"] += count
        elif verdict != Verdict.KEPT:
            reasons[names[Verdict(verdict)]] += count
    return dict(reasons)


def rank(source: ScoredRows, choice: SelectionOptions, *, by: str, descending: bool) -> Ranking:
    """Decide on every row; equal values keep their input order.

    Args:
        source: read once; with ``distinct`` again, for the rows to embed.
        choice: which rows to keep.
        by: column to order by.
        descending: largest values first.

    Raises:
        InputError: the source cannot be read.
        SelectionError: the rows lack a column that is asked for, or a group that has a quota.
        RowError: ``distinct`` is given, and a row has no example to embed.
    """
    columns = Columns(source, choice, by)
    columns.contents.check(source.name, choice, source.field(by))
    values, verdicts = columns.values, columns.verdicts
    candidates = np.flatnonzero(verdicts == Verdict.UNDECIDED)
    keys = -values[candidates] if descending else values[candidates]
    order = candidates[np.argsort(keys, kind="stable")]
    groups = columns.groups
    names = groups.names if groups else [""]
    counts = np.bincount(groups.of_row[order], minlength=len(names)) if groups else np.array([len(order)])
    room = [choice.room(name, count) for name, count in zip(names, counts.tolist(), strict=True)]
    within = order
    if choice.max_loss is not None:
        within = order[: np.searchsorted(values[order], np.float64(choice.max_loss), side="right")]
        verdicts[order[len(within) :]] = Verdict.ABOVE
    nearest = None
    blocks = _blocks(within)
    if choice.distinct is not None:
        nearest = NearestKept(np.full(len(values), -1), np.full(len(values), np.nan))
        blocks = _embedded_blocks(source, within, sum(room), choice.distinct)
    with closing(blocks):
        over_budget = _walk(blocks, columns, list(room), choice.tokens, nearest)
    undecided = within[verdicts[within] == Verdict.UNDECIDED]
    verdicts[undecided] = Verdict.FULL if over_budget is None else Verdict.OVER_BUDGET
    kept = within[verdicts[within] == Verdict.KEPT]
    tokens_kept = None if columns.lengths is None else int(columns.lengths[kept].sum())
    return Ranking(values, verdicts, order, kept, groups, room, nearest, tokens_kept)


def _blocks(order: NDArray[np.int64]) -> Generator[tuple[NDArray[np.int64], KeptVectors | None], None, None]:
    for begin in range(0, len(order), BLOCK_ROWS):
        yield order[begin : begin + BLOCK_ROWS], None


def _embedded_blocks(
    source: ScoredRows, order: NDArray[np.int64], wanted: int, distinct: Distinct
) -> Generator[tuple[NDArray[np.int64], KeptVectors | None], None, None]:
    """Yield rows once their vectors are set; embeds at most a window or two more than the caller takes."""
    kept = KeptVectors(distinct.distance)
    begin = 0
    with (
        closing(_examples(source, order, wanted, distinct)) as examples,
        closing(distinct.embedder.embeddings(examples)) as embeddings,
    ):
        for window in embeddings:
            for first in range(0, len(window), BLOCK):
                block = window[first : first + BLOCK]
                kept.begin(block)
                yield order[begin : begin + len(block)], kept
                begin += len(block)
    if begin != len(order):
        raise SelectionError(f"the embedder gave {begin} vectors for {len(order)} examples")


def _examples(
    source: ScoredRows, order: NDArray[np.int64], wanted: int, distinct: Distinct
) -> Generator[Example, None, None]:
    """Yield examples in order; reads the file for some more rows than are wanted, then for twice as many each time."""
    options = distinct.field_options
    begin, size = 0, wanted + wanted // 4 + BLOCK
    while begin < len(order):
        for line, raw in in_order(source, order[begin : begin + size], lambda row: row.raw):
            row = SourceRow(source.name, line, 0, raw, loads(raw))
            try:
                yield RowParser(options.shape_of([row]), options).example(row)
            except (RowError, InputError) as error:
                raise RowError(f"{source.name}, line {line}: {error} (distinct needs its text)") from error
        begin, size = begin + size, 2 * size


def _walk(
    blocks: Iterator[tuple[NDArray[np.int64], KeptVectors | None]],
    columns: Columns,
    room: list[int],
    budget: int | None,
    nearest: NearestKept | None,
) -> int | None:
    """Decide on rows in order, until no group has room or the token budget is used up.

    Returns:
        The tokens with the first row over the budget; None where the budget was not exceeded.
    """
    spent, places_left = 0, sum(room)
    for rows, kept in blocks if places_left else ():
        of_row = columns.groups.of_row[rows].tolist() if columns.groups is not None else [0] * len(rows)
        lengths = columns.lengths[rows].tolist() if columns.lengths is not None else [0] * len(rows)
        for at, (row, group, length) in enumerate(zip(rows.tolist(), of_row, lengths, strict=True)):
            if not room[group]:
                columns.verdicts[row] = Verdict.FULL
                continue
            if kept is not None and nearest is not None and (found := kept.near(at)) is not None:
                columns.verdicts[row] = Verdict.NEAR
                nearest.distances[row], nearest.rows[row] = found
                continue
            if budget is not None and spent + length > budget:
                return int(spent + length)
            columns.verdicts[row] = Verdict.KEPT
            spent += length
            room[group] -= 1
            places_left -= 1
            if kept is not None:
                kept.keep(at, row)
        if not places_left:
            break
    return None


def groups_as_json(
    names: Sequence[str], candidates: Sequence[int], room: Sequence[int], kept: Sequence[int]
) -> Mapping[str, object]:
    """Return the candidates, most rows and kept rows of each group, as the selection file has them."""
    return {
        name: {"candidates": candidates[at], "at_most": room[at], "kept": kept[at]} for at, name in enumerate(names)
    }


def short_of_wanted(
    choice: SelectionOptions, kept: int, names: Sequence[str] = (), of_group: Sequence[int] = ()
) -> Iterator[str]:
    """Yield a remark where rows ran out before as many were kept as wanted, or on each group with fewer than its quota.

    Args:
        choice: what was wanted.
        kept: rows.
        names: of the groups, if there are any.
        of_group: rows kept of each group.
    """
    other_limit = any(limit is not None for limit in (choice.fraction, choice.max_loss, choice.tokens))
    if choice.group_by is None and choice.top is not None and not other_limit and 0 < kept < choice.top:
        yield f"{kept:,} of the {choice.top:,} rows wanted"
    for name, count in zip(names, of_group, strict=True):
        if count < choice.quotas.get(name, 0):
            yield f"group {name!r}: {count:,} of its quota of {choice.quotas[name]:,}"
