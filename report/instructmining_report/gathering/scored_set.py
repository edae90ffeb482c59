"""Reads a scored file once: its numbers wait in temporary files, of its texts only digests are kept."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from instructmining.errors import SelectionError
from instructmining.errors.names import no_such
from instructmining.rules import Rule
from instructmining.scored.column_store import ColumnStore
from instructmining.scored.compare import row_digest
from instructmining.scored.describe import Truncation
from instructmining.scored.few_tokens import rows_on_few_tokens
from instructmining.scored.matching import match
from instructmining.scored.scored_file import LARGEST, ScoredBlock, ScoredRows
from instructmining.types import KNN_COLUMNS, MARGIN, PREDICTION, SIDES, SourceRow
from instructmining_report.gathering.conversations import Parser
from instructmining_report.gathering.groups import USUAL, GroupFinder, Groups
from instructmining_report.gathering.records import Records, records_of, same_reason
from instructmining_report.options import ReportOptions

_LOOKED_AT = 20  # rows in which the format is detected
_MOST_REASONS = 200  # per column
_MOST_COLUMNS = 40
TOLERANCE = 1e-6  # between a prediction in the file and the rule's, relative to the larger of 1 and the prediction
_NO_PROMPT = b"\0" * 8


@dataclass(frozen=True, slots=True)
class ScoredSet:
    """A set that was read. Row numbers count from 0."""

    label: str  # short, unique name
    source: ScoredRows
    records: Records
    store: ColumnStore  # the columns; for a set without scores, those of equal rows of another set
    columns: tuple[str, ...]  # of ``score`` in the store, without prefix
    rows: int
    digests: NDArray[np.uint64]  # (rows,) equal for rows whose own fields are equal
    prompts: NDArray[np.uint64]  # (rows,) equal for rows with equal prompts, 0 where there is none
    truncation: Truncation
    truncated: NDArray[np.int64]  # numbers of truncated rows
    few_tokens: Mapping[str, int]
    nulls: Mapping[str, Mapping[str, int]]  # column → reason → rows
    groups: Mapping[str, Groups]  # by field
    parser: Parser
    borrowed_from: str | None = None  # label of the set that the values are from
    unmatched: int = 0  # rows without values, since that set has no equal row
    left_out: int = 0  # columns of neighbours that are not shown, since there are very many
    predicted_here: bool = False  # whether the predictions are the rule's, not the file's

    @property
    def parts(self) -> tuple[str, ...]:
        """What stands before the columns: nothing, or the sides of preference pairs and the margin."""
        return parts_of(self.columns)


def parts_of(columns: Sequence[str]) -> tuple[str, ...]:
    """Return what stands before the columns: nothing, or the sides of preference pairs and the margin."""
    names = [f"{side}." for side in (*SIDES, MARGIN)]
    return tuple(name for name in names if any(column.startswith(name) for column in columns)) or ("",)


def read_set(
    rows: ScoredRows, label: str, rule: Rule | None, options: ReportOptions, open_stores: ExitStack
) -> ScoredSet:
    """Read a scored set.

    Args:
        rows: the rows of a file that ``score`` wrote, or of a table in memory.
        label: short name of the set.
        rule: predicts rows of a file that has no predictions.
        options: options of the report.
        open_stores: closes the temporary files.

    Raises:
        InputError: the file cannot be read.
        SelectionError: a line is not a row or lacks a column of the first row, a group's field is wrong, or the file's
            predictions are another rule's.
        RuleError: the rows lack a term of the rule.
        OutputError: the temporary folder refuses the numbers.
    """
    if rule is not None and rows.columns:
        rows.check_terms(rule)
    parts = parts_of(rows.columns)
    terms = [f"{part}{term}" for part in parts for term in rule.terms] if rule is not None and rows.columns else []
    predictions = [f"{part}{PREDICTION}" for part in parts] if rule is not None and rows.columns else []
    missing = [name for name in predictions if name not in rows.columns]
    columns = _most_telling(rows.columns, {*terms, options.by})
    read = tuple(dict.fromkeys((*columns, *terms)))
    store = open_stores.enter_context(ColumnStore((*read, *missing)))
    named = options.group_by is not None
    fields = [rows.field(options.group_by)] if options.group_by is not None else [f for f in USUAL if f in rows.fields]
    finder = GroupFinder(rows.name, fields, named=named)
    reader = _Reader(rows, Parser(options.fields), Truncation(f"{options.prefix}truncated"), options)
    few: Counter[str] = Counter()
    for block in rows.blocks(read, largest=LARGEST):
        values = dict(block.columns)
        if rule is not None and terms:
            _predict(rows, block, values, rule, parts, missing)
        store.add(values)
        few.update(rows_on_few_tokens(block.columns))
        finder.add(block.rows)
        reader.add(block.rows)
    groups = finder.groups()
    if named and rows.fields and not groups:
        raise SelectionError(f"{rows.name}: {no_such('field', str(options.group_by), rows.names)}")
    return ScoredSet(
        label=label,
        source=rows,
        records=records_of(rows.path, texts=options.texts),
        store=store,
        columns=(*columns, *missing),
        left_out=len(rows.columns) - len(columns),
        rows=reader.count,
        digests=_joined(reader.digests),
        prompts=_joined(reader.prompts),
        truncation=reader.truncation,
        truncated=np.array(reader.truncated, dtype=np.int64),
        few_tokens=few,
        nulls={column: dict(reasons) for column, reasons in reader.nulls.items()},
        groups=groups,
        parser=reader.parser,
        predicted_here=bool(missing),
    )


def _most_telling(columns: Sequence[str], needed: Collection[str | None]) -> tuple[str, ...]:
    """Leave out columns of neighbours where there are very many columns: each is almost the one before it."""
    if len(columns) <= _MOST_COLUMNS:
        return tuple(columns)
    others = set(KNN_COLUMNS.values()) - {KNN_COLUMNS[1], KNN_COLUMNS[6]}
    return tuple(name for name in columns if name in needed or name.rpartition(".")[2] not in others)


def with_values_of(one: ScoredSet, other: ScoredSet, open_stores: ExitStack) -> ScoredSet:
    """Return a set without scores with the values that equal rows of another set have."""
    partners = match(one.digests, other.digests).second_of_first
    known = partners >= 0
    store = open_stores.enter_context(ColumnStore(other.store.names))
    for name in other.store.names:
        values = np.full(one.rows, np.nan)
        values[known] = other.store.column(name)[partners[known]]
        store.put(name, values)
    truncated = np.isin(partners, other.truncated)
    return replace(
        one,
        store=store,
        columns=other.columns,
        borrowed_from=other.label,
        unmatched=int((~known).sum()),
        truncated=np.flatnonzero(truncated),
        predicted_here=other.predicted_here,
    )


class _Reader:
    """Notes what is kept of rows beside their numbers."""

    def __init__(self, source: ScoredRows, parser: Parser, truncation: Truncation, options: ReportOptions) -> None:
        self.count = 0
        self.parser = parser
        self.truncation = truncation
        self.truncated: list[int] = []
        self.digests: list[bytes] = []
        self.prompts: list[bytes] = []
        self.nulls: dict[str, Counter[str]] = {}
        self._source = source
        self._texts = options.texts
        self._notes = f"{options.prefix}score_notes"
        self._prefix = options.prefix

    def add(self, rows: Sequence[SourceRow]) -> None:
        source = self._source
        own = [replace(row, fields=source.own_fields(row)) for row in rows]
        if not self.count:
            self.parser.look(own[:_LOOKED_AT])
        self.digests.append(b"".join([row_digest(source, row) for row in own]))
        self.prompts.append(b"".join([self._prompt(row) for row in own]))
        for number, row in enumerate(rows, self.count):
            before = self.truncation.rows
            self.truncation.count(row)
            if self.truncation.rows != before:
                self.truncated.append(number)
            if notes := row.fields.get(self._notes):
                self._note(notes)
        self.count += len(rows)

    def _prompt(self, row: SourceRow) -> bytes:
        example = self.parser.example(row)
        texts = example.prompt_texts if example is not None else []
        if not any(texts):
            return _NO_PROMPT
        joined = "\0".join(texts).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(joined, digest_size=8).digest()

    def _note(self, notes: object) -> None:
        for column, reason in notes.items() if isinstance(notes, Mapping) else ():
            reasons = self.nulls.setdefault(str(column).removeprefix(self._prefix), Counter())
            text = same_reason(str(reason), texts=self._texts)
            reasons[text if text in reasons or len(reasons) < _MOST_REASONS else "other reasons"] += 1


def _predict(
    source: ScoredRows,
    block: ScoredBlock,
    columns: dict[str, NDArray[np.float64]],
    rule: Rule,
    parts: Sequence[str],
    missing: Sequence[str],
) -> None:
    """Add the predictions that a file lacks; check those that it has.

    Raises:
        SelectionError: the file has another rule's predictions.
    """
    for part in parts:
        values = rule.predict({term: columns[f"{part}{term}"] for term in rule.terms})
        values = values - rule.intercept if part == f"{MARGIN}." else values
        name = f"{part}{PREDICTION}"
        if name in missing:
            columns[name] = np.where(np.isfinite(values), values, np.nan)
            continue
        other = np.abs(columns[name] - values) > TOLERANCE * np.maximum(1, np.abs(values))
        if other.any():
            at = int(other.argmax())
            row = block.rows[at]
            raise SelectionError(
                f"{row.source}, line {row.line}: rule {rule.id!r} predicts {values[at]:.6g}, the file says "
                f"{columns[name][at]:.6g}: {source.name} was scored with another rule; give that one, or rescore first"
            )


def _joined(digests: Sequence[bytes]) -> NDArray[np.uint64]:
    return np.frombuffer(b"".join(digests), dtype=np.uint64)
