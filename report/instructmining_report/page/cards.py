"""The facts of a set's card, from the set and the records beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from instructmining.scored.describe import Description
from instructmining.scored.scored_file import LENGTHS
from instructmining.types import MARGIN
from instructmining_report.drawing.numbers import number, percent
from instructmining_report.figures.missing import Missing
from instructmining_report.gathering.records import mapping_at, number_at, text_at, value_at
from instructmining_report.gathering.scored_set import ScoredSet

_DAY, _HOUR, _MINUTE = 86_400, 3_600, 60
_FIRST = ("bundle", "rule", "device")  # facts of a run that are always shown
_SHOWN_CHOICES = ("top", "fraction", "max_loss", "tokens", "where", "group_by")


@dataclass(frozen=True, slots=True)
class Card:
    """What a set is."""

    label: str
    place: int  # among the sets, which decides its colour
    facts: tuple[tuple[str, str], ...]
    run: tuple[tuple[str, str], ...]  # how it was scored
    cautions: tuple[str, ...]


def card_of(one: ScoredSet, described: Description, missing: Missing, place: int) -> Card:
    """Return the card of a set."""
    facts = [("rows", number(one.rows))]
    tokens = tokens_of(one, described)
    if tokens is not None:
        facts.append(("tokens", number(tokens)))
    if (predicted := described.predicted) is not None and predicted.mean_of_rows is not None:
        text = number(predicted.mean_of_rows)
        if predicted.at_means is not None and number(predicted.at_means) != text:
            text += f"; {number(predicted.at_means)} at the means of the terms"
        facts.append(("predicted log loss", text))
    if missing.truncated_rows:
        facts.append(("truncated", _of_rows(missing.truncated_rows, one.rows)))
    if missing.rejects is not None:
        facts.append(("rejected", number(missing.rejected)))
    facts.append(("file", Path(one.source.name).name or one.source.name))  # a path would tell about the machine
    if one.borrowed_from is not None:
        facts.append(("scores", f"those of equal rows of {one.borrowed_from}"))
        if one.unmatched:
            facts.append(("without an equal row", number(one.unmatched)))
    run = _run(one.records.run)
    facts += [fact for fact in run if fact[0] in _FIRST]
    facts += _selection(one.records.selection)
    return Card(
        one.label,
        place,
        tuple(facts),
        tuple(fact for fact in run if fact[0] not in _FIRST),
        tuple(_cautions(one, described)),
    )


def tokens_of(one: ScoredSet, described: Description) -> int | None:
    """Return the tokens of all prompts and responses, of both sides of pairs; None where they were not counted."""
    names = [f"{part}{length}" for part in one.parts if part != f"{MARGIN}." for length in LENGTHS]
    if not names or not all(name in described.columns for name in names):
        return None
    sums = [(described.columns[name].mean or 0.0) * (one.rows - described.columns[name].nulls) for name in names]
    return round(sum(sums))


def _of_rows(count: int, rows: int) -> str:
    return f"{count:,} ({percent(count / rows if rows else None)})"


def _run(run: Mapping[str, object]) -> list[tuple[str, str]]:
    if not run:
        return []
    inputs = value_at(run, "settings", "inputs")
    names = [Path(str(name)).name for name in inputs] if isinstance(inputs, list) else []
    seconds, rows = number_at(run, "seconds", "total"), number_at(run, "counts", "rows_out")
    versions = mapping_at(run, "versions")
    settings = [
        f"{name} {text}"
        for name in ("limit", "max_length", "format", "precision")
        if (text := text_at(run, "settings", name)) is not None
    ]
    models = [
        f"{role}: {text_at(mapping_at(run, 'bundle', 'roles'), role, 'id') or '?'}"
        f" ({text_at(mapping_at(run, 'bundle', 'roles'), role, 'precision') or '?'})"
        for role in mapping_at(run, "bundle", "roles")
    ]
    found = {
        "input": ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""),
        "scored at": text_at(run, "started_at"),
        "device": text_at(run, "device"),
        "took": None if seconds is None else duration(seconds, rows),
        "bundle": text_at(run, "bundle", "name"),
        "models": "; ".join(models),
        "rule": text_at(run, "rule", "id"),
        "neighbours": _neighbours(mapping_at(run, "settings", "knn")),
        "settings": ", ".join(settings),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return [(name, text) for name, text in found.items() if text]


def _neighbours(knn: Mapping[str, object]) -> str | None:
    return f"{text_at(knn, 'search')} search, {text_at(knn, 'metric')}, among {text_at(knn, 'pool')}" if knn else None


def _selection(selection: Mapping[str, object]) -> list[tuple[str, str]]:
    if not selection:
        return []
    choice = mapping_at(selection, "choice")
    words = []
    for name in _SHOWN_CHOICES:
        value = choice.get(name)
        if value not in (None, [], {}):
            words.append(f"{name} {', '.join(map(str, value)) if isinstance(value, list) else value}")
    if (distance := text_at(choice, "distinct", "distance")) is not None:
        words.append(f"distinct {distance}")
    order = "descending" if selection.get("descending") is True else "ascending"
    found = [("selected by", f"{text_at(selection, 'by')}, {order}; {', '.join(words) or 'no limit'}")]
    for reason, rows in mapping_at(selection, "counts", "left_out").items():
        found.append((f"left out: {reason}", number(rows if isinstance(rows, int) else None)))
    if (scored := text_at(selection, "scored", "path")) is not None:
        found.append(("selected from", Path(scored).name))
    return found


def _cautions(one: ScoredSet, described: Description) -> list[str]:
    run = one.records.run
    found = [text for text in (text_at(run, "caution"), text_at(run, "bundle", "note")) if text]
    found += [
        f"{column} rests on fewer than 3 tokens in {rows:,} row{'' if rows == 1 else 's'}: read medians, not means."
        for column, rows in one.few_tokens.items()
    ]
    if described.predicted is not None:
        found += [f"Outside of what the rule was fitted on: {term}." for term in described.predicted.extrapolated]
    if one.predicted_here:
        found.append("The file has no predictions: they were computed for this page by the rule that was named.")
    if one.left_out:
        found.append(f"{one.left_out} columns of further neighbours are not shown.")
    return found


def duration(seconds: float, rows: float | None) -> str:
    """Return a time in words, with the rows per second."""
    if seconds >= _DAY:
        text = f"{seconds / _DAY:.1f} days"
    elif seconds >= _HOUR:
        text = f"{int(seconds // _HOUR)} h {int(seconds % _HOUR // _MINUTE)} min"
    elif seconds >= _MINUTE:
        text = f"{int(seconds // _MINUTE)} min {int(seconds % _MINUTE)} s"
    else:
        text = f"{seconds:.1f} s"
    return f"{text} ({rows / seconds:,.1f} rows/s)" if rows and seconds > 0 else text
