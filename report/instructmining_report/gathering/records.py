"""Reads the records beside a scored file: the run, the selection, and the rejected rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from instructmining.errors import InputError
from instructmining.reading.options import ReadOptions
from instructmining.reading.rows import open_rows
from instructmining.reading.small_files import read_small
from instructmining.stores.addresses import is_address
from instructmining.stores.files import exists
from instructmining.types import SourceRow

_MOST_REASONS = 200  # counted by name
_REJECT_OPTIONS = ReadOptions(max_row_bytes=2**31 - 2)
_NUMBERS = re.compile(r"0x[0-9a-f]+|(?<![A-Za-z]-)(?<!\w)\d[\d,.]*(?<![,.])")  # not those in names: knn_6, UTF-8
# Quotes of a row's own values; names of fields stay.
_QUOTED = re.compile(r"(?<!field )(?<!fields )(?<!column )(?<!in )'[^']*'|\"[^\"]*\"")
_OTHERS = "other reasons"


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that was not scored."""

    source: str
    line: int
    reason: str
    text: str | None  # None where it is not UTF-8


@dataclass(frozen=True, slots=True)
class RejectReason:
    """Rows that were rejected for one reason."""

    reason: str  # numbers as …, so that equal reasons count together
    rows: int
    first: RejectedRow


@dataclass(frozen=True, slots=True)
class Records:
    """What lies beside a scored file; all empty where there is nothing."""

    run: Mapping[str, object] = field(default_factory=dict)
    selection: Mapping[str, object] = field(default_factory=dict)
    rejects: tuple[RejectReason, ...] | None = None  # None without a rejects file
    files: tuple[str, ...] = ()  # all that were read


def records_of(path: str | None, *, texts: bool = True) -> Records:
    """Read the records beside a scored file; a record that is damaged is as if it were not there.

    Args:
        path: the scored file; None for a table in memory.
        texts: whether quotes of rows are kept.
    """
    if path is None:
        return Records()
    run, selection, rejects = (f"{path}{suffix}" for suffix in (".run.json", ".selection.json", ".rejects.jsonl"))
    return Records(_object(run), _object(selection), _rejects(rejects, texts=texts), (run, selection, rejects))


def text_at(record: Mapping[str, object], *names: str) -> str | None:
    """Return a value of a record as text; None where there is none."""
    value = value_at(record, *names)
    return None if value is None or isinstance(value, (dict, list)) else str(value)


def number_at(record: Mapping[str, object], *names: str) -> float | None:
    """Return a number of a record; None where there is none."""
    value = value_at(record, *names)
    return None if isinstance(value, bool) or not isinstance(value, (int, float)) else value


def mapping_at(record: Mapping[str, object], *names: str) -> Mapping[str, object]:
    """Return an object of a record; empty where there is none."""
    value = value_at(record, *names)
    return value if isinstance(value, dict) else {}


def value_at(record: Mapping[str, object], *names: str) -> object:
    """Return the value below these names; None where there is none."""
    value: object = record
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def same_reason(reason: str, *, texts: bool = True) -> str:
    """Return a reason without its numbers, and without quoted values if texts are left out."""
    plain = reason if texts else _QUOTED.sub("'…'", reason)
    return _NUMBERS.sub("…", plain)[:300]


def _object(path: str) -> Mapping[str, object]:
    try:
        value = orjson.loads(read_small(path))
    except (OSError, orjson.JSONDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def _rejects(path: str, *, texts: bool) -> tuple[RejectReason, ...] | None:
    try:
        there = exists(path) if is_address(path) else Path(path).is_file()
    except OSError:
        there = False
    if not there:
        return None
    counts: dict[str, int] = {}
    first: dict[str, RejectedRow] = {}
    try:
        for row in open_rows(path, _REJECT_OPTIONS):
            if not isinstance(row, SourceRow):
                continue
            rejected = _rejected(row.fields)
            reason = same_reason(rejected.reason, texts=texts)
            reason = reason if reason in counts or len(counts) < _MOST_REASONS else _OTHERS
            counts[reason] = counts.get(reason, 0) + 1
            first.setdefault(reason, rejected)
    except InputError:
        return None
    ordered = sorted(counts, key=lambda reason: (-counts[reason], reason))
    return tuple(RejectReason(reason, counts[reason], first[reason]) for reason in ordered)


def _rejected(fields: Mapping[str, object]) -> RejectedRow:
    line, text = fields.get("line"), fields.get("row")
    return RejectedRow(
        source=str(fields.get("source") or ""),
        line=line if isinstance(line, int) else 0,
        reason=str(fields.get("reason") or "no reason given"),
        text=text if isinstance(text, str) else None,
    )
