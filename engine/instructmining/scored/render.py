"""Formats descriptions and comparisons as text, CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Literal

import orjson

from instructmining.scored.aligning import aligned, shortened, wrapped
from instructmining.scored.compare import Comparison, SetCounts
from instructmining.scored.describe import Description, PredictedLoss
from instructmining.scored.few_tokens import said_of_few_tokens
from instructmining.types import PREDICTION

_SUMMARY = ("mean", "median", "sd", "min", "5%", "25%", "75%", "95%", "max", "null", "VIF")
_LEAST_NAME = 16  # least characters of a set's name in a table
_DIFFERENCE = ("mean A", "mean B", "B - A", "standardized", "sd A", "sd B", "KS", "Wasserstein", "null A", "null B")


def descriptions_json(described: Sequence[Description]) -> str:
    """Return ``{"sets": [...]}`` with the fields of each description; infinite and undefined values are null."""
    return _json({"sets": [asdict(one) for one in described]})


def descriptions_csv(described: Sequence[Description]) -> str:
    """Return the table that ``fit`` reads, without ``loss``: a line per set with its name and its indicators' means.

    A cell is empty where a set lacks the column.
    """
    columns = list(dict.fromkeys(column for one in described for column in one.means))
    written = io.StringIO()
    lines = csv.writer(written, lineterminator="\n")
    lines.writerow(["name", *columns])
    for one in described:
        means = one.means
        lines.writerow([one.name, *("" if (mean := means.get(column)) is None else repr(mean) for column in columns)])
    return written.getvalue()


def descriptions_text(described: Sequence[Description], *, width: int | None = None) -> str:
    """Return a table of all sets, if there are several, then each in full.

    Args:
        described: the sets.
        width: most characters per line, to which lines are wrapped; None does not wrap.
    """
    kinds: tuple[Literal["mean", "median"], ...] = ("mean", "median") if len(described) > 1 else ()
    parts = [_side_by_side(described, kind, width) for kind in kinds]
    return "\n\n".join([*parts, *(_description(one, width) for one in described)]) + "\n"


def comparison_json(comparison: Comparison) -> str:
    """Return the fields of the comparison; undefined values are null."""
    return _json(asdict(comparison))


def comparison_text(comparison: Comparison, *, width: int | None = None) -> str:
    """Return both sets, the rows that left and entered, and a line per column.

    Args:
        comparison: the comparison.
        width: most characters per line, to which lines are wrapped; None does not wrap.
    """
    sides = (("A", comparison.first), ("B", comparison.second))
    lines = [wrapped(f"{label}: {_set_line(side)}", width, indent=3) for label, side in sides]
    moved = f"left (in A alone) {comparison.left:,}, entered (in B alone) {comparison.entered:,}"
    lines.append(wrapped(f"in both {comparison.common:,}, {moved}", width))
    table = [
        [
            name,
            *(_number(value) for value in (one.first_mean, one.second_mean, one.difference, one.standardized)),
            *(_number(value) for value in (one.first_deviation, one.second_deviation, one.ks, one.wasserstein)),
            f"{one.first_nulls:,}",
            f"{one.second_nulls:,}",
        ]
        for name, one in comparison.columns.items()
    ]
    return "\n".join([*lines, "", aligned([["column", *_DIFFERENCE], *table], width)]) + "\n"


def _side_by_side(described: Sequence[Description], kind: Literal["mean", "median"], width: int | None) -> str:
    columns = list(dict.fromkeys(column for one in described for column in one.columns))
    names = shortened([one.name for one in described], None if width is None else max(_LEAST_NAME, width // 3))
    rows = [
        [
            name,
            f"{one.rows:,}",
            *(_number(getattr(one.columns[column], kind) if column in one.columns else None) for column in columns),
        ]
        for name, one in zip(names, described, strict=True)
    ]
    return f"{kind}s\n" + aligned([["set", "rows", *columns], *rows], width)


def _description(described: Description, width: int | None) -> str:
    lines = [f"{described.name}: {described.rows:,} row{'' if described.rows == 1 else 's'}"]
    if described.truncated_rows:
        roles = ", ".join(f"{role} {rows:,}" for role, rows in described.truncated.items())
        lines.append(f"truncated: {described.truncated_rows:,} ({roles})")
    lines += said_of_few_tokens(described.few_tokens)
    if described.predicted is not None:
        lines += _predicted(described.predicted)
    lines = [wrapped(line, width) for line in lines]
    if described.columns:
        lines += ["", _summaries(described, width), "", "correlation: Pearson above the diagonal, Spearman below"]
        lines.append(_correlation(described.pearson, described.spearman, width))
    return "\n".join(lines)


def _predicted(predicted: PredictedLoss) -> list[str]:
    rows = f"{_number(predicted.mean_of_rows)} as the mean of {predicted.rows:,} rows' predictions"
    if predicted.rule is None:
        return [f"predicted log loss: {rows}"]
    lines = [f"predicted log loss by rule {predicted.rule}: {_number(predicted.at_means)} at the set's means, {rows}"]
    return lines + [f"outside of what the rule was fitted on: {term}" for term in predicted.extrapolated]


def _summaries(described: Description, width: int | None) -> str:
    rows = [
        [
            name,
            *(_number(value) for value in (one.mean, one.median, one.standard_deviation, one.minimum)),
            *(_number(value) for value in (one.percentile_5, one.percentile_25, one.percentile_75, one.percentile_95)),
            _number(one.maximum),
            f"{one.nulls:,}",
            "" if name == PREDICTION else _number(described.inflation.get(name)),
        ]
        for name, one in described.columns.items()
    ]
    return aligned([["column", *_SUMMARY], *rows], width)


def _correlation(
    above: Mapping[str, Mapping[str, float | None]], below: Mapping[str, Mapping[str, float | None]], width: int | None
) -> str:
    names = list(above)
    rows = [
        [
            name,
            *(
                "1" if row == place else _number((above if place > row else below)[name][other], "{:.3f}")
                for place, other in enumerate(names)
            ),
        ]
        for row, name in enumerate(names)
    ]
    return aligned([["", *names], *rows], width)


def _set_line(side: SetCounts) -> str:
    tokens = "".join(f", {name.replace('_', ' ')} {count:,} tokens" for name, count in side.tokens.items())
    borrowed = "; has no scores, uses those of the other set" if side.values_from_other else ""
    unmatched = f", which lacks {side.unmatched:,} of its rows" if side.unmatched else ""
    return f"{side.name}: {side.rows:,} row{'' if side.rows == 1 else 's'}{tokens}{borrowed}{unmatched}"


def _number(value: float | None, form: str = "{:.5g}") -> str:
    return "-" if value is None else form.format(value)


def _json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n"
