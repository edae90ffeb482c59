"""Formats descriptions and comparisons as text, CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal

import orjson

from instructmining.scored.aligning import aligned, shortened, wrapped
from instructmining.scored.comparison import Comparison
from instructmining.scored.description import Description
from instructmining.tables import number

_LEAST_NAME = 16  # least characters of a set's name in a table


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
    *sides, moved = map(str, comparison.lines())
    lines = [*(wrapped(side, width, indent=3) for side in sides), wrapped(moved, width)]
    return "\n".join([*lines, "", aligned(list(comparison.differences().lines()), width)]) + "\n"


def _side_by_side(described: Sequence[Description], kind: Literal["mean", "median"], width: int | None) -> str:
    columns = list(dict.fromkeys(column for one in described for column in one.columns))
    names = shortened([one.name for one in described], None if width is None else max(_LEAST_NAME, width // 3))
    rows = [
        [
            name,
            f"{one.rows:,}",
            *(number(getattr(one.columns[column], kind) if column in one.columns else None) for column in columns),
        ]
        for name, one in zip(names, described, strict=True)
    ]
    return f"{kind}s\n" + aligned([["set", "rows", *columns], *rows], width)


def _description(described: Description, width: int | None) -> str:
    lines = [wrapped(str(line), width) for line in described.lines()]
    if described.columns:
        lines += ["", aligned(list(described.summaries().lines()), width)]
        correlations = described.correlations()
        lines += ["", correlations.caption, aligned(list(correlations.lines()), width)]
    return "\n".join(lines)


def _json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n"
