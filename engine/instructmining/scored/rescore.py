"""Applies another rule to a scored file: replaces the predictions in the rows' bytes; runs no model."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import orjson

from instructmining.errors import SelectionError
from instructmining.errors.arguments import shown
from instructmining.reading.json_members import members
from instructmining.reading.rows import Source
from instructmining.reading.values import all_utf8, dumps
from instructmining.rules import Rule
from instructmining.scored.line_files import check_row_file, row_file
from instructmining.scored.scored_file import ScoredRows
from instructmining.types import PAIR_COLUMNS, PREDICTION, SourceRow, pair_columns
from instructmining.writing.atomic import Placement
from instructmining.writing.provenance import of_run


@dataclass(frozen=True, slots=True)
class Rescoring:
    """The result of :func:`rescore`."""

    rows: int
    without_value: int  # rows without a prediction, since a term is null
    caution: str | None  # a warning about the predictions


def rescore(
    scored: Source, out: str | Path, rule: str | Path | Rule, *, prefix: str = "", overwrite: bool = False
) -> Rescoring:
    """Write the rows of a scored file with the predictions of another rule, computed from their columns.

    All other bytes of a row stay: the rows are those that ``score`` would write with this rule and the same indicators.
    Also writes ``OUT.run.json``, except for standard output. Memory holds one block of rows.

    Args:
        scored: a file that ``score`` wrote, with or without a prediction.
        out: a path ending in .jsonl, .parquet, .csv or .tsv, text also .gz or .zst; "-" for standard output.
        rule: "paper-v1", "paper-v3", a JSON file or a rule.
        prefix: prefix of the columns of ``score``.
        overwrite: replace OUT.

    Raises:
        InputError: the file cannot be read.
        SelectionError: a line is not a row, or a term is not a number.
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
    to_file = str(out) != "-"
    out = check_row_file(out) if to_file else "-"
    run_path = f"{out}.run.json"
    bundle = source.bundle
    caution = _caution(chosen, bundle)
    rows = without_value = 0

    def run_file() -> dict[str, object]:
        run = {
            "command": "rescore",
            "versions": {
                "python": platform.python_version(),
                **{package: version(package) for package in ("instructmining", "numpy", "orjson")},
            },
            "scored": source.digest,
            "rule": {"id": chosen.id, "digest": chosen.digest, "reward_model": chosen.reward_model},
            "bundle": bundle,
            "caution": caution,
            "settings": {"prefix": prefix},
            "counts": {"rows_in": rows, "rows_out": rows, "null": {PREDICTION: without_value}},
            "seconds": {"total": round(time.perf_counter() - began, 3)},
        }
        valid: dict[str, object] = all_utf8(run)
        return valid

    reads = [*source.files, rule if isinstance(rule, (str, Path)) else None]
    with Placement([out], overwrite=overwrite, sidecars=[run_path] if to_file else [], reads=reads) as files:
        with row_file(files, out, prefix=prefix, about=lambda: of_run(run_file())) as stream:
            edit = _Edit(prefix)
            for taken in source.row_blocks():
                predictions = _predictions(source, taken, chosen)
                lines = [edit.row(row, predicted) for row, predicted in zip(taken, predictions, strict=True)]
                stream.write(b"\n".join([*lines, b""]))
                rows += len(lines)
                without_value += sum(bool(predicted.reasons) for predicted in predictions)
        if to_file:
            files.write(run_path, orjson.dumps(run_file(), option=orjson.OPT_INDENT_2) + b"\n")
            files.put()
    return Rescoring(rows, without_value, caution)


@dataclass(frozen=True, slots=True)
class _Predicted:
    """New values of a row: its prediction, or those of a pair's sides and their difference."""

    values: Mapping[str, float | None]  # by column
    reasons: Mapping[str, str]  # column → why it is None


def _predictions(source: ScoredRows, rows: Sequence[SourceRow], rule: Rule) -> list[_Predicted]:
    placed = [(row, side) for row in rows for side in source.sides(row)]
    owners, sides = [row for row, _ in placed], [side for _, side in placed]
    columns = {term: source.side_numbers(owners, sides, term) for term in rule.terms}
    predicted = rule.predict(columns)  # one that is not finite counts as undefined, as in score
    reasons = rule.reasons(columns, predicted)
    of_rows = []
    chosen: tuple[float | None, str] = (None, "")
    for place, (side, number) in enumerate(zip(sides, predicted.tolist(), strict=True)):
        finite = math.isfinite(number)
        one = (number if finite else None, "" if finite else reasons.get(place, "not a finite number"))
        if side == "chosen":
            chosen = one
        elif side == "rejected":
            of_rows.append(_pair(chosen, one))
        else:
            of_rows.append(_Predicted({PREDICTION: one[0]}, {PREDICTION: one[1]} if one[1] else {}))
    return of_rows


def _pair(chosen: tuple[float | None, str], rejected: tuple[float | None, str]) -> _Predicted:
    columns, notes = pair_columns(PREDICTION, chosen[0], rejected[0])
    reasons = dict(zip(columns, (chosen[1], rejected[1]), strict=False))
    return _Predicted(columns, {name: why for name, why in (reasons | notes).items() if why})


class _Edit:
    """Replaces the predictions in the bytes of rows."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._truncated, self._notes = f"{prefix}truncated", f"{prefix}score_notes"
        self._ours = frozenset(f"{prefix}{name}" for name in (PREDICTION, *PAIR_COLUMNS[PREDICTION]))

    def row(self, row: SourceRow, predicted: _Predicted) -> bytes:
        """Return the row's bytes with these predictions, and with the reasons of those that are None.

        Raises:
            SelectionError: the row's notes are no object.
        """
        values = {f"{self._prefix}{name}": value for name, value in predicted.values.items()}
        notes = self._new_notes(row, {f"{self._prefix}{name}": why for name, why in predicted.reasons.items()})
        # score writes these columns at the end of a row and nothing after them: bytes that open with a comma and close
        # with the row's own bracket can only be its last members.
        last = (*values, self._truncated, self._notes)
        there = {name: row.fields[name] for name in last if name in row.fields}
        end = b"," + dumps(there)[1:]
        if not row.raw.endswith(end):
            return self._edited(row, values, notes)
        changed = values | {name: value for name, value in there.items() if name not in values}
        if notes is not None:
            changed[self._notes] = notes
        return row.raw[: -len(end)] + b"," + dumps(changed)[1:]

    def _new_notes(self, row: SourceRow, reasons: Mapping[str, str]) -> dict[str, object] | None:
        """Return the row's notes with these reasons; None where the row has no notes and needs none."""
        notes = row.fields.get(self._notes)
        if notes is not None and not isinstance(notes, dict):
            raise SelectionError(f"{row.source}, line {row.line}: {self._notes!r} is {shown(notes)}, wanted an object")
        if notes is None and not reasons:
            return None
        return {name: why for name, why in (notes or {}).items() if name not in self._ours} | dict(reasons)

    def _edited(self, row: SourceRow, values: Mapping[str, float | None], notes: dict[str, object] | None) -> bytes:
        """Edit a row that another program wrote, whose columns may be anywhere among its members."""
        raw = row.raw
        there = {member.name: member for member in members(raw)}  # of members with the same name the last counts
        edits: list[tuple[int, int, bytes]] = []
        closing = raw.rindex(b"}")
        later = [there[name].key for name in (self._truncated, self._notes) if name in there]
        new = [dumps(name) + b":" + dumps(value) for name, value in values.items() if name not in there]
        edits += [(*there[name].value, dumps(value)) for name, value in values.items() if name in there]
        if new and later:
            edits.append((min(later), min(later), b",".join([*new, b""])))
        elif new:
            edits.append((closing, closing, b"," * bool(there) + b",".join(new)))
        if self._notes in there and notes != row.fields.get(self._notes):
            edits.append((*there[self._notes].value, dumps(notes)))
        elif self._notes not in there and notes is not None:
            edits.append((closing, closing, b"," + dumps({self._notes: notes})[1:-1]))
        edits.sort(key=lambda edit: edit[0])  # stable: two edits at the end keep their order
        pieces, at = [], 0
        for begin, end, text in edits:
            pieces += [raw[at:begin], text]
            at = end
        return b"".join([*pieces, raw[at:]])


def _caution(rule: Rule, bundle: Mapping[str, object] | None) -> str | None:
    """Return a warning where the rule's reward model is not, or may not be, the one that computed the column."""
    if "reward" not in rule.terms or rule.reward_model is None:
        return None
    match bundle:
        case {"roles": {"reward": {"id": found}}}:
            if found == rule.reward_model:
                return None
            given = f"the column comes from {found}"
        case _:
            given = "without the run file it is not known which model gave the column"
    return (
        f"rule {rule.id!r} was fitted with the reward model {rule.reward_model}; {given}: "
        "the predicted losses are then not the rule's, in scale or in order"
    )
