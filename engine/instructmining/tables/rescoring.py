"""Another rule over the columns of a scored file: the prediction is replaced in the rows' bytes, no model runs."""

from __future__ import annotations

import math
import platform
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import orjson

from instructmining.errors import SelectionError
from instructmining.linefiles import line_file, row_file
from instructmining.reading.examples import input_digest
from instructmining.reading.rows import Source
from instructmining.records import PREDICTION, SourceRow
from instructmining.rules import Rule
from instructmining.scored import ScoredBlock, ScoredRows

# A string, a bracket, or what separates members; all else is numbers, words and spaces.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Rescoring:
    """What was written."""

    rows: int
    without_value: int  # rows that have no prediction, for want of a term
    caution: str | None  # what must be said beside the predictions


def rescore(
    scored: Source, out: str | Path, rule: str | Path | Rule, *, prefix: str = "", overwrite: bool = False
) -> Rescoring:
    """Predict by another rule from the columns there are, and write the rows with that prediction in place of theirs.

    All other bytes of a row stay. The rows are those that ``score`` would have written with this rule and the same
    indicators. Beside OUT stands ``OUT.run.json``, but for standard output. Memory holds one block of rows.

    Args:
        scored: a file that ``score`` wrote, with or without a prediction.
        out: a path ending in .jsonl, .jsonl.gz, .jsonl.zst or .parquet; "-" for standard output.
        rule: "paper-v1", "paper-v3", a JSON file or a rule.
        prefix: what ``score`` put before its columns' names.
        overwrite: replace OUT.

    Raises:
        InputError: the file cannot be read.
        SelectionError: a line is not a row, or has something other than a number in a term's column.
        RuleError: the rule cannot be read, or one of its terms has no column.
        OutputError: OUT exists, has another suffix, or cannot be written.

    Example:
        >>> from instructmining import rescore
        >>> rescore("scored.jsonl", "mine.jsonl", "rule.json").rows  # doctest: +SKIP
    """
    began = time.perf_counter()
    source = ScoredRows(scored, prefix=prefix)
    chosen = rule if isinstance(rule, Rule) else Rule.load(rule)
    source.check_terms(chosen)
    target = row_file(out, overwrite=overwrite, sources=[source.path])
    bundle = source.bundle
    caution = _caution(chosen, bundle)
    rows = without_value = 0

    def run_file() -> bytes:
        run = {
            "command": "rescore",
            "versions": {
                "python": platform.python_version(),
                **{package: version(package) for package in ("instructmining", "numpy", "orjson")},
            },
            "scored": None if source.path is None else input_digest(source.name),
            "rule": {"id": chosen.id, "digest": chosen.digest, "reward_model": chosen.reward_model},
            "bundle": bundle,
            "caution": caution,
            "settings": {"prefix": prefix},
            "counts": {"rows_in": rows, "rows_out": rows, "null": {PREDICTION: without_value}},
            "seconds": {"total": round(time.perf_counter() - began, 3)},
        }
        return orjson.dumps(run, option=orjson.OPT_INDENT_2) + b"\n"

    with line_file(target, prefix=prefix, run=run_file) as stream:
        for block in source.blocks(tuple(chosen.terms)):
            lines, nulls = _rescored(block, chosen, prefix)
            stream.write(b"\n".join([*lines, b""]))
            rows += len(lines)
            without_value += nulls
    return Rescoring(rows, without_value, caution)


def _rescored(block: ScoredBlock, rule: Rule, prefix: str) -> tuple[list[bytes], int]:
    """The rows' new bytes, and how many of them have no prediction."""
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite has no value, as when it is scored
        predicted = rule.predict(block.columns)
    reasons = rule.reasons(block.columns, predicted)
    edit = _Edit(prefix)
    lines = []
    nulls = 0
    for place, (row, value) in enumerate(zip(block.rows, predicted.tolist(), strict=True)):
        if math.isfinite(value):
            lines.append(edit.row(row, value, None))
        else:
            lines.append(edit.row(row, None, reasons.get(place, "not a finite number")))
            nulls += 1
    return lines, nulls


class _Edit:
    """Puts a prediction into a row's bytes."""

    def __init__(self, prefix: str) -> None:
        self._prediction, self._notes = f"{prefix}{PREDICTION}", f"{prefix}score_notes"
        self._last = (self._prediction, f"{prefix}truncated", self._notes)

    def row(self, row: SourceRow, value: float | None, reason: str | None) -> bytes:
        """The row's bytes with this prediction, and with the reason where it is None.

        Raises:
            SelectionError: its notes are no object.
        """
        notes = self._new_notes(row, reason)
        # As score wrote it, the row ends in these columns and nothing but these: bytes that open with a comma and close
        # with the row's own bracket can only be its last members.
        there = {name: row.fields[name] for name in self._last if name in row.fields}
        end = b"," + orjson.dumps(there)[1:]
        if not row.raw.endswith(end):
            return self._edited(row.raw, row.fields.get(self._notes), value, notes)
        changed = {self._prediction: value, **there, **({self._notes: notes} if notes is not None else {})}
        changed[self._prediction] = value
        return row.raw[: -len(end)] + b"," + orjson.dumps(changed)[1:]

    def _new_notes(self, row: SourceRow, reason: str | None) -> dict[str, object] | None:
        """Why columns are null; None where the row has no such column and needs none."""
        notes = row.fields.get(self._notes)
        if notes is not None and not isinstance(notes, dict):
            raise SelectionError(f"{row.source}, line {row.line}: {self._notes!r} is {notes!r}, wanted an object")
        if notes is None and reason is None:
            return None
        others = {name: why for name, why in (notes or {}).items() if name != self._prediction}
        return others if reason is None else {**others, self._prediction: reason}

    def _edited(self, raw: bytes, old_notes: object, value: float | None, notes: dict[str, object] | None) -> bytes:
        """The same for a row that another program wrote: the columns are looked for among its members."""
        members = {member.name: member for member in _members(raw)}  # of several of one name the last counts
        edits: list[tuple[int, int, bytes]] = []
        closing = raw.rindex(b"}")
        pair = orjson.dumps(self._prediction) + b":" + orjson.dumps(value)
        behind = [members[name].key for name in self._last[1:] if name in members]
        if self._prediction in members:
            edits.append((*members[self._prediction].value, orjson.dumps(value)))
        elif behind:
            edits.append((min(behind), min(behind), pair + b","))
        else:
            edits.append((closing, closing, b"," * bool(members) + pair))
        if self._notes in members and notes != old_notes:
            edits.append((*members[self._notes].value, orjson.dumps(notes)))
        elif self._notes not in members and notes is not None:
            edits.append((closing, closing, b"," + orjson.dumps({self._notes: notes})[1:-1]))
        edits.sort(key=lambda edit: edit[0])  # stable: two at the end stay in their order
        pieces, at = [], 0
        for begin, end, new in edits:
            pieces += [raw[at:begin], new]
            at = end
        return b"".join([*pieces, raw[at:]])


@dataclass(frozen=True, slots=True)
class _Member:
    """Where a field stands in an object's bytes."""

    name: str
    key: int  # where its name begins
    value: tuple[int, int]  # where its value begins and ends


def _members(raw: bytes) -> Iterator[_Member]:
    """The fields of one JSON object, which is known to be valid."""
    depth = 0
    name, key, begin = "", 0, -1
    for match in _TOKEN.finditer(raw):
        symbol = match.group()
        depth -= symbol in (b"}", b"]")
        if (depth == 0 and symbol == b"}") or (depth == 1 and symbol == b","):
            if begin >= 0:
                text = raw[begin : match.start()]
                start = match.start() - len(text.lstrip())
                yield _Member(name, key, (start, start + len(text.strip())))
            begin = -1
        elif depth == 1 and symbol == b":":
            begin = match.end()
        elif depth == 1 and begin < 0 and symbol.startswith(b'"'):
            name, key = orjson.loads(symbol), match.start()
        depth += symbol in (b"{", b"[")


def _caution(rule: Rule, bundle: Mapping[str, object] | None) -> str | None:
    """What must be said where the rule's reward model is not the one that gave the column, or that is not known."""
    if "reward" not in rule.terms or rule.reward_model is None:
        return None
    match bundle:
        case {"roles": {"reward": {"id": found}}}:
            if found == rule.reward_model:
                return None
            given = f"the column comes from {found}"
        case _:
            given = "which one gave the column is not known, for want of the run file"
    return (
        f"rule {rule.id!r} was fitted with the reward model {rule.reward_model}; {given}: "
        "the predicted losses are then not the paper's, in scale or in order"
    )
