"""Collects what is known about files of rows: how they were scored and selected, for the card of a data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from instructmining.errors import InputError, RuleError, SelectionError
from instructmining.reading.formats import FieldOptions
from instructmining.reading.rows import first_of
from instructmining.reading.small_files import read_small
from instructmining.rules import PRESETS, Rule
from instructmining.scored.describe import ColumnSummary, describe
from instructmining.scored.scored_file import ScoredRows
from instructmining.stores.addresses import name_of
from instructmining.writing.provenance import RUN, SELECTION

_LOOKED_AT = 100  # first rows that show the format


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is known about one file; empty or None where it is not.

    Attributes:
        path: the file as given.
        rows: its rows.
        format: format of the rows, as detected.
        is_of_pairs: whether the rows are preference pairs.
        fields: fields of the first row.
        run: how its rows were scored, as the run file has it.
        selection: how they were selected, as the selection file has it.
        columns: summaries of the columns that the rows have.
        truncated: rows of this file that a model saw truncated, if it has that column.
        unknown: what could not be found out, as sentences.
    """

    path: str
    rows: int
    format: str | None
    is_of_pairs: bool
    fields: Sequence[str]
    run: Mapping[str, Any] = field(default_factory=dict)
    selection: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, ColumnSummary] = field(default_factory=dict)
    truncated: int | None = None
    unknown: Sequence[str] = ()

    @property
    def name(self) -> str:
        """Name of the file, without its folder."""
        return name_of(self.path)

    @property
    def rule(self) -> Mapping[str, Any]:
        """Id and digest of the rule; empty where there is none."""
        found = self.run.get("rule")
        return found if isinstance(found, Mapping) else {}

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where the rule comes from, if it is one that is delivered here."""
        if self.rule.get("id") not in PRESETS:
            return {}
        with suppress(RuleError):
            preset = Rule.load(str(self.rule["id"]))
            return preset.provenance if preset.digest == self.rule.get("digest") else {}
        return {}

    @property
    def bundle(self) -> Mapping[str, Any]:
        """The bundle that computed the columns; empty where it is not known."""
        found = self.run.get("bundle")
        return found if isinstance(found, Mapping) else {}


def facts_of(path: str, *, prefix: str = "") -> FileFacts:
    """Read a file of rows and what was written beside it.

    Args:
        path: a file that ``select``, ``score``, ``merge`` or ``rescore`` wrote.
        prefix: prefix of the columns of ``score``.

    Raises:
        InputError: the file cannot be read.
        SelectionError: a line is not a row, or what lies beside the file tells of another number of rows.
    """
    source = ScoredRows(path, prefix=prefix)
    inside = _metadata(path)
    selection = _beside(path, ".selection.json") or inside.get(SELECTION, {})
    run = _beside(path, ".run.json")
    if not run and selection and (scored := _scored_file(selection)) is not None:
        run = _beside(scored, ".run.json")
    run = run or inside.get(RUN, {})
    described = describe(path, prefix=prefix) if source.columns else None
    rows = described.rows if described is not None else sum(1 for _ in source.rows())
    _check_rows(path, rows, run if not selection else {}, selection)
    shape = _shape(source)
    facts = FileFacts(
        path,
        rows,
        shape[0] if shape is not None else None,
        shape is not None and shape[1],
        source.fields,
        run,
        selection,
        described.columns if described is not None else {},
        described.truncated_rows if described is not None else None,
    )
    return replace(facts, unknown=tuple(_unknown(facts)))


def _unknown(facts: FileFacts) -> Iterator[str]:
    if not facts.run:
        yield f"{facts.name}: no run file says how its rows were scored"
    elif not facts.rule and not facts.selection:
        yield f"{facts.name}: its rows were scored without a rule"
    elif facts.rule and not facts.provenance:
        yield f"{facts.name}: where its rule comes from is not in the run file; add it to the text"
    if not facts.selection:
        yield f"{facts.name}: no selection file says how its rows were chosen"
    if not facts.columns:
        yield f"{facts.name}: its rows have no scores, so there are no figures of them; select keeps scores if told to"
    if facts.format is None:
        yield f"{facts.name}: its rows have no known format"


def _scored_file(selection: Mapping[str, Any]) -> str | None:
    match selection.get("scored"):
        case {"path": str() as path}:
            return path
    return None


def _check_rows(path: str, rows: int, run: Mapping[str, Any], selection: Mapping[str, Any]) -> None:
    """Check that what lies beside a file tells of it.

    Raises:
        SelectionError: it tells of another number of rows.
    """
    match selection:
        case {"counts": {"kept": int() as kept}} if kept != rows:
            raise SelectionError(
                f"{path}: has {rows:,} rows, and {path}.selection.json tells of {kept:,}; select again"
            )
    match run:
        case {"counts": {"rows_out": int() as written}} if written != rows:
            raise SelectionError(f"{path}: has {rows:,} rows, and {path}.run.json tells of {written:,}")


def _shape(source: ScoredRows) -> tuple[str, bool] | None:
    """Return the name of the rows' format, and whether they are pairs; None where it is not known."""
    first = first_of(source.rows(), _LOOKED_AT, lambda row: row.raw)
    own = [replace(row, fields=source.own_fields(row)) for row in first]
    try:
        shape = FieldOptions().shape_of(own)
    except InputError:
        return None
    return shape.name, shape.is_of_pairs


def _beside(path: str, suffix: str) -> Mapping[str, Any]:
    """Return the JSON object in the file with this suffix; empty where there is none, or it is damaged."""
    try:
        found = orjson.loads(read_small(f"{path}{suffix}"))
    except (OSError, orjson.JSONDecodeError):
        return {}
    return found if isinstance(found, Mapping) else {}


def _metadata(path: str) -> Mapping[str, Mapping[str, Any]]:
    """Return what a Parquet file on this machine says about itself; empty for all others."""
    if not path.endswith(".parquet") or not Path(path).is_file():
        return {}
    import pyarrow.parquet as pq  # noqa: PLC0415 - only where tables are read

    found = pq.read_schema(path).metadata or {}
    said = {name: orjson.loads(found[name.encode()]) for name in (RUN, SELECTION) if name.encode() in found}
    return {name: value for name, value in said.items() if isinstance(value, Mapping)}
