"""Explains why each row was kept or left out, and what each term of the rule adds to its prediction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from instructmining.errors import RuleError, SelectionError
from instructmining.reading.small_files import read_small
from instructmining.reading.values import dumps
from instructmining.rules import Rule
from instructmining.scored.scored_file import LENGTHS, ScoredBlock, ScoredRows
from instructmining.scored.selection.conditions import Condition
from instructmining.scored.selection.options import SelectionOptions
from instructmining.scored.selection.qualifying import Verdict
from instructmining.scored.selection.ranking import Ranking
from instructmining.types import PREDICTION, SourceRow

_TOLERANCE = 1e-6  # between the file's prediction and the rule's, relative to the larger of 1 and the prediction


def rule_of_run(scored: str) -> tuple[Rule | None, str]:
    """Load the rule that the run file of a scored file names; returns the reason where there is none."""
    path = f"{scored}.run.json"
    try:
        run = orjson.loads(read_small(path))
        named = run["rule"]
        if named is None:
            return None, f"{path} names no rule"
        rule = Rule.load(run["settings"].get("rule") or named["id"])
    except OSError:
        return None, f"there is no {path} that names the rule"
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None, f"{path} is not a run file of score"
    except RuleError as error:
        return None, f"{path} names a rule that is not there ({error})"
    if rule.digest != named.get("digest"):
        return None, f"{path} names rule {named['id']!r} as it was before its file changed"
    return rule, ""


@dataclass(frozen=True, slots=True)
class Explainer:
    """Makes a JSON line for each row of the source, in order."""

    source: ScoredRows
    ranking: Ranking
    choice: SelectionOptions
    value: str  # field that the rows are ordered by
    rule: Rule | None

    def lines(self) -> Iterator[bytes]:
        """Yield the lines, without newlines; memory holds a block of rows and two numbers per row.

        ``row`` counts from 1. ``rank`` is the row's place among the candidates, ``place`` its line of OUT, ``reason``
        why it is not kept. With a rule, ``intercept`` and ``contributions`` add up to ``predicted_log_loss``, which is
        null where a term is.

        Raises:
            SelectionError: the rows lack a term of the rule, or were predicted by another rule.
        """
        rows = len(self.ranking.values)
        ranks, places = _places(self.ranking.order, rows), _places(self.ranking.kept, rows)
        terms = list(self.rule.terms) if self.rule is not None else []
        number = 0
        for block in self.source.blocks(terms):
            for row, contributions in zip(block.rows, self._contributions(block), strict=True):
                line: dict[str, object] = {
                    "row": number + 1,
                    "kept": bool(places[number]),
                    "rank": int(ranks[number]) or None,
                    "place": int(places[number]) or None,
                }
                if self.ranking.groups is not None:
                    line["group"] = self._group(number)
                line["reason"] = self._reason(row, number, int(ranks[number]))
                yield dumps(line | contributions)
                number += 1

    def _contributions(self, block: ScoredBlock) -> Iterator[dict[str, object]]:
        if self.rule is None:
            yield from ({} for _ in block.rows)
            return
        contributions = self.rule.contributions(block.columns)
        predicted = self.rule.predict(block.columns)
        self._check(block, predicted)
        intercept = self.rule.intercept
        parts = (values.tolist() for values in contributions.values())
        for prediction, *added in zip(predicted.tolist(), *parts, strict=True):
            yield {  # NaN is written as null
                "intercept": intercept,
                "contributions": dict(zip(contributions, added, strict=True)),
                PREDICTION: prediction,
            }

    def _check(self, block: ScoredBlock, predicted: NDArray[np.float64]) -> None:
        """Check that the predictions in the file are this rule's.

        Raises:
            SelectionError: they are not.
        """
        found = self.source.numbers_or_missing(block.rows, PREDICTION)
        other = np.abs(found - predicted) > _TOLERANCE * np.maximum(1, np.abs(predicted))
        if other.any():
            at = int(other.argmax())
            row = block.rows[at]
            raise SelectionError(
                f"{row.source}, line {row.line}: rule {self.rule.id if self.rule else ''!r} predicts "
                f"{predicted[at]:.6g}, the file says {found[at]:.6g}: it was scored with another rule; give that one, "
                "or rescore first"
            )

    def _reason(self, row: SourceRow, number: int, rank: int) -> str | None:
        ranking, choice = self.ranking, self.choice
        verdict = int(ranking.verdicts[number])
        notes = f"{self.source.prefix}score_notes"
        if verdict >= Verdict.FIRST_CONDITION:
            condition = choice.conditions[(verdict - Verdict.FIRST_CONDITION) // 2]
            return _failing(row, condition, self.source.field(condition.column), notes)
        lengths = map(self.source.field, LENGTHS)
        reason = None
        match verdict:
            case Verdict.NO_VALUE:
                reason = _null(row, self.value, notes)
            case Verdict.NO_LENGTH:
                reason = _null(row, next(name for name in lengths if row.fields.get(name) is None), notes)
            case Verdict.NO_QUOTA:
                reason = f"group {self._group(number)!r} has no quota"
            case Verdict.ABOVE:
                reason = f"{self.value} {ranking.values[number]} is more than {choice.max_loss}"
            case Verdict.FULL if ranking.groups is None:
                reason = f"rank {rank}, {ranking.room[0]} were wanted"
            case Verdict.FULL if ranking.groups is not None:
                most = ranking.room[ranking.groups.of_row[number]]
                reason = f"rank {rank}, group {self._group(number)!r} is full with the {most} wanted"
            case Verdict.OVER_BUDGET:
                reason = f"rank {rank}, beyond the budget of {choice.tokens} tokens"
            case Verdict.NEAR if ranking.nearest is not None:
                near = ranking.nearest
                reason = f"{near.distances[number]:.4f} from row {near.rows[number] + 1}, which was kept"
        return reason

    def _group(self, number: int) -> str:
        groups = self.ranking.groups
        return groups.names[groups.of_row[number]] if groups is not None else ""


def _failing(row: SourceRow, condition: Condition, name: str, notes: str) -> str:
    """Return why a row does not fulfil a condition on the field of that name."""
    if row.fields.get(name) is None:
        return _null(row, name, notes)
    return f"{name} {row.fields[name]} fails {condition}"


def _null(row: SourceRow, name: str, notes: str) -> str:
    """Return that a field is null, and why, if ``score`` noted it."""
    if name not in row.fields:
        return f"{name} is missing"
    noted = row.fields.get(notes)
    note = noted.get(name) if isinstance(noted, dict) else None
    return f"{name} is null: {note}" if note else f"{name} is null"


def _places(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return each row's place among these rows, from 1, (count,); 0 for others."""
    places = np.zeros(count, dtype=np.int64)
    places[rows] = np.arange(1, len(rows) + 1)
    return places
