"""The output of ``inspect`` as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from instructmining.reading.formats import SHAPES
from instructmining.scored.aligning import aligned, wrapped
from instructmining_cli.reports.inspecting import FileFacts, Inspection, Lengths, SeenRow, SeenText
from instructmining_scale.wording import duration, rows_of

_MAX_TEXT_CHARS = 600  # the middle of a longer text is left out
_OPEN, _CLOSE = "⟦", "⟧"  # enclose scored text
_QUANTILES = (("5%", 5), ("median", 50), ("95%", 95))


def report(found: Inspection, *, expected_s: float | None, basis: str, width: int | None) -> Iterator[str]:
    """Yield the report as text; a part may have several lines.

    Args:
        found: result of the inspection.
        expected_s: seconds that scoring all rows should take; None if not known.
        basis: what they are based on, or why they are not known.
        width: most characters of a line; None for no limit.
    """
    for file in found.files:
        yield from (wrapped(line, width) for line in _file(file))
    if found.refused:
        yield wrapped(f"rejected by the models' templates: {_counted(len(found.refused), found)}; {_why(found)}", width)
    if found.lengths:
        yield ""
        yield aligned(_length_rows(found.lengths), width)
    for number, row in enumerate(found.first, 1):
        yield ""
        yield from (wrapped(line, width, indent=6) for line in _row(number, row))
    yield ""
    yield wrapped(_expected(found, expected_s, basis), width)


def as_json(found: Inspection, *, expected_s: float | None) -> dict[str, object]:
    """Return the report as JSON."""
    return {
        "rows": round(found.rows),
        "expected_s": expected_s,
        "files": [
            {
                "path": file.path,
                "format": file.format,
                "rows": round(file.rows),
                "rows_are_counted": file.is_whole,
                "looked_at": file.looked_at,
                "fields": {role: dict(names) for role, names in file.roles.items()},
                "not_read": dict(file.unread),
                "rejected": file.rejected,
                "rejects": [{"line": reject.line, "reason": reject.reason} for reject in file.rejects],
                "scored_before": list(file.earlier),
            }
            for file in found.files
        ],
        "lengths": {
            name: {
                "texts": len(lengths.tokens),
                "mean": float(lengths.tokens.mean()) if len(lengths.tokens) else None,
                **{label: _quantile(lengths, share) for label, share in _QUANTILES},
                "max": int(lengths.tokens.max(initial=0)),
                "cut": lengths.cut,
                "limit": lengths.limit,
            }
            for name, lengths in found.lengths.items()
        },
        "first_rows": [
            {
                "line": row.example.row.line if row.example.row else None,
                "side": row.example.side,
                "texts": [
                    {
                        "model": text.label,
                        "tokens": text.tokens,
                        "cut": text.cut,
                        "segments": [{"text": part, "scored": scored} for part, scored in text.segments],
                    }
                    for text in row.texts
                ],
            }
            for row in found.first
        ],
    }


def _file(file: FileFacts) -> Iterator[str]:
    about = "" if file.is_whole else "about "
    looked = "" if file.is_whole else f", the first {file.looked_at:,} read"
    yield f"{file.path}: {about}{rows_of(round(file.rows))}{looked}"
    if file.format is None:
        yield "  format: none found, no row could be read"
    else:
        shape = SHAPES.get(file.format)
        why = "as --map says" if shape is None else f"by its fields: {shape.described()}"
        yield f"  format {file.format}, {why}"
    fields = [
        f"{role}: {', '.join(f'{name} ({rows:,})' for name, rows in names.items())}"
        for role, names in file.roles.items()
    ]
    if fields:
        yield f"  read: {'; '.join(fields)}"
    if file.unread:
        yield f"  not read: {', '.join(f'{name or chr(39) * 2} ({rows:,})' for name, rows in file.unread.items())}"
    for mark, rows in file.templated.items():
        yield f"  {rows_of(rows)} contain {mark!r}, a mark of a template; all of it is scored as the response"
    if file.earlier:
        yield f"  scored before with: {', '.join(file.earlier)}; these are kept"
    if file.rejected:
        yield f"  rejected: {rows_of(file.rejected)} of {file.looked_at:,}"
        for reject in file.rejects:
            yield f"    line {reject.line}: {reject.reason}"
        if more := file.rejected - len(file.rejects):
            yield f"    and {more:,} more"


def _counted(rows: int, found: Inspection) -> str:
    return f"{rows_of(rows)} of {sum(file.looked_at for file in found.files):,}"


def _why(found: Inspection) -> str:
    first = found.refused[0]
    return f"the first on line {first.line}: {first.reason}"


def _length_rows(by_text: Mapping[str, Lengths]) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [["tokens of", "texts", *(label for label, _ in _QUANTILES), "max", "limit", "cut"]]
    for name, lengths in by_text.items():
        quantiles = [f"{_quantile(lengths, share):,.0f}" for _, share in _QUANTILES]
        limit = "" if lengths.limit is None else f"{lengths.limit:,}"
        cut = "" if lengths.limit is None else f"{lengths.cut:,}"
        rows.append([name, f"{len(lengths.tokens):,}", *quantiles, f"{lengths.tokens.max(initial=0):,}", limit, cut])
    return rows


def _quantile(lengths: Lengths, share: int) -> float:
    return float(np.percentile(lengths.tokens, share)) if len(lengths.tokens) else 0.0


def _row(number: int, row: SeenRow) -> Iterator[str]:
    place = f" (line {row.example.row.line})" if row.example.row else ""
    side = f", {row.example.side}" if row.example.side else ""
    marked = f", {_OPEN}scored{_CLOSE}" if row.texts else ""
    yield f"example {number}{place}{side}{marked}:"
    if not row.texts:
        yield from (f"  {turn.role}: {_shortened(turn.text)}" for turn in row.example.turns)
    for text in row.texts:
        cut = f", {text.cut:,} more are truncated" if text.cut else ""
        yield f"  {text.label}, {text.tokens:,} tokens{cut}:"
        yield f"    {_shown(text)}"


def _shown(text: SeenText) -> str:
    whole = "".join(f"{_OPEN}{part}{_CLOSE}" if scored else part for part, scored in text.segments)
    return _shortened(whole)


def _shortened(text: str) -> str:
    line = text.replace("\n", "⏎")
    if len(line) <= _MAX_TEXT_CHARS:
        return line
    half = _MAX_TEXT_CHARS // 2
    return f"{line[:half]} … {len(line) - 2 * half:,} characters … {line[-half:]}"


def _expected(found: Inspection, expected_s: float | None, basis: str) -> str:
    about = "" if all(file.is_whole for file in found.files) else "about "
    rows = rows_of(round(found.rows))
    if expected_s is None:
        return f"{about}{rows}; how long scoring takes is not known: {basis}"
    return f"{about}{rows}: scoring should take {duration(expected_s)} ({basis})"
