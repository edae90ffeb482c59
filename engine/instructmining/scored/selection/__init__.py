"""Selects the best rows of a scored file, in ascending predicted loss or by another column."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from instructmining.errors import SelectionError
from instructmining.reading.file_kinds import kind_by_name
from instructmining.reading.rows import Source
from instructmining.reading.values import all_utf8, loads
from instructmining.rules import Rule
from instructmining.scored.scored_file import ScoredRows
from instructmining.scored.selection.converting import Conversion, Converter
from instructmining.scored.selection.explanations import Explainer, rule_of_run
from instructmining.scored.selection.filesets import FileSet
from instructmining.scored.selection.near_duplicates import Distinct
from instructmining.scored.selection.options import Extras, SelectionOptions, check
from instructmining.scored.selection.ranking import Ranking, groups_as_json, rank, short_of_wanted
from instructmining.scored.selection.subsets import in_file_order, in_order, random_rows, without_scores
from instructmining.tables import Line, Table, counted
from instructmining.tables.html import as_html
from instructmining.types import PREDICTION, SourceRow
from instructmining.writing.provenance import of_run, of_selection
from instructmining.writing.shapes import TargetName, target_name

__all__ = ["Conversion", "Extras", "Selection", "SelectionOptions", "select"]


@dataclass(frozen=True, slots=True)
class Selection:
    """The result of :func:`select`."""

    rows: int  # rows in the scored file
    without_value: int  # rows left out because the column is null
    kept: int
    worst: float | None  # value of the column in the last row kept
    left_out: Mapping[str, int] = field(default_factory=dict)  # reason → rows; with the kept rows they are all rows
    tokens: int | None = None  # of the rows kept, if a budget was given
    remarks: tuple[str, ...] = ()  # what could not be done in full
    kept_rows: tuple[Mapping[str, object], ...] = ()  # the rows kept, best first, if no OUT was given

    def _repr_html_(self) -> str:
        """Return the counts as HTML, for notebooks; the rows themselves stay in ``kept_rows``."""
        worst = "" if self.worst is None else f", the last at {self.worst:.4f}"
        tokens = "" if self.tokens is None else f", {self.tokens:,} tokens"
        reasons = tuple((reason, f"{rows:,}") for reason, rows in self.left_out.items())
        blocks = [Line(f"kept {self.kept:,} of {counted(self.rows)}{worst}{tokens}")]
        table = [Table("rows left out", ("reason", "rows"), reasons)] if reasons else []
        return as_html([*blocks, *table, *(Line(f"caution: {remark}") for remark in self.remarks)])


def select(  # noqa: PLR0913 - each field of SelectionOptions is also an argument
    scored: Source,
    out: str | Path | None = None,
    choice: SelectionOptions | None = None,
    *,
    top: int | None = None,
    fraction: float | None = None,
    max_loss: float | None = None,
    tokens: int | None = None,
    where: Sequence[str] = (),
    group_by: str | None = None,
    quotas: Mapping[str, int] | None = None,
    distinct: Distinct | None = None,
    by: str = PREDICTION,
    prefix: str = "",
    descending: bool = False,
    keep_scores: bool = False,
    convert: TargetName | Conversion | None = None,
    overwrite: bool = False,
    extras: Extras | None = None,
) -> Selection:
    """Write the rows with the smallest values, ascending; equal values keep their input order.

    Also writes OUT.selection.json: the settings, the digest of the scored file and the counts by reason. The same file
    and settings give the same bytes in all files. Reads the scored file twice, once more for each extra file, and a few
    times more for near duplicates. Memory holds a few numbers per row, not the rows.

    Args:
        scored: a file that ``score`` wrote, or scored rows in memory.
        out: .jsonl, .parquet, .csv or .tsv, text also .gz or .zst; "-" for standard output, without
            OUT.selection.json. None writes no file, and returns the rows in ``kept_rows``.
        choice: which rows are kept; or give its fields as arguments.
        top: as in :class:`SelectionOptions`, which explains all eight.
        fraction: likewise.
        max_loss: likewise.
        tokens: likewise.
        where: likewise.
        group_by: likewise.
        quotas: likewise.
        distinct: likewise.
        by: column to order by.
        prefix: prefix of the columns of ``score``.
        descending: largest values first, for columns where more is better.
        keep_scores: keep the columns of ``score``; without it, rows have the bytes that they had before scoring.
        convert: write rows in a shape that trainers read, instead of their own: "messages", "alpaca", "sharegpt" or
            "preference", or a :class:`Conversion` with its options.
        overwrite: replace OUT and the extra files.
        extras: further files to write.

    Raises:
        InputError: the scored file cannot be read, or changed meanwhile.
        SelectionError: an argument has the wrong type or is out of range, a line is not a row, the rows lack a
            column or a group that is asked for, or a row cannot be written in the shape asked for.
        RowError: ``distinct`` is given, and a row has no example to embed.
        RuleError: the rule to explain cannot be read, or the rows lack one of its terms.
        OutputError: a file exists, has another suffix, or cannot be written.

    Example:
        >>> from instructmining import SelectionOptions, Distinct, Extras, Scorer, select
        >>> select("scored.jsonl", "best.jsonl", top=1000, where=["output_length>=5"]).kept  # doctest: +SKIP
        >>> select("scored.jsonl", fraction=0.1).kept_rows  # doctest: +SKIP
        >>> with Scorer.open("bundle", roles=["embedding"]) as scorer:  # doctest: +SKIP
        ...     choice = SelectionOptions(top=1000, where=["output_length>=5"], distinct=Distinct(0.3, scorer))
        ...     select("scored.jsonl", "best.jsonl", choice, extras=Extras(explain="why.jsonl"))
    """
    given = {
        "top": top,
        "fraction": fraction,
        "max_loss": max_loss,
        "tokens": tokens,
        "where": where,
        "group_by": group_by,
        "quotas": {} if quotas is None else quotas,
        "distinct": distinct,
    }
    choice = chosen(choice, given)
    check("out", out, (str, Path, NoneType), wanted='a path, "-" or None')
    check("by", by, str, wanted="the name of a column")
    check("extras", extras, (Extras, NoneType), wanted="Extras, as Extras(explain='why.jsonl')")
    extras = extras or Extras()
    check("convert", convert, (str, Conversion, NoneType), wanted="the name of a shape, a Conversion or None")
    conversion = Conversion(target_name(convert)) if isinstance(convert, str) else convert
    if descending and choice.max_loss is not None:
        raise SelectionError("max_loss keeps the smallest values and cannot be combined with descending")
    source = ScoredRows(scored, prefix=prefix)
    targets = [extras.random_baseline, extras.explain, out]
    reads = [*source.files, extras.rule if isinstance(extras.rule, (str, Path)) else None]
    with FileSet(targets, reads=reads, prefix=prefix, overwrite=overwrite) as files:
        rule, remark = _rule(source.path, extras)
        if rule is not None:
            source.check_terms(rule)
        ranking = rank(source, choice, by=by, descending=descending)

        written = _Contents(source, conversion, keep_scores=keep_scores)
        if extras.random_baseline is not None:
            drawn = random_rows(np.flatnonzero(~np.isnan(ranking.values)), len(ranking.kept), extras.seed)
            random = map(written.content(), in_file_order(source, drawn))
            files.write(extras.random_baseline, random, lambda: of_run(source.run))
        if extras.explain is not None:
            files.write(extras.explain, Explainer(source, ranking, choice, source.field(by), rule).lines())
        lines = _begun(line for _, line in in_order(source, ranking.kept, written.content()))
        rows: tuple[Mapping[str, object], ...] = ()

        def finished() -> tuple[Selection, dict[str, Any]]:
            """Return the result and the content of the selection file, once all lines are made."""
            nothing = ["nothing was kept"] if len(ranking.values) and not len(ranking.kept) else []
            short = _short(ranking, choice)
            remarks = (*nothing, *([remark] if remark else []), *short, *written.remarks(), *_as_text(out, conversion))
            found = _selection(ranking, choice, source.field(by), remarks, rows)
            settings = {"by": by, "prefix": prefix, "descending": descending, "keep_scores": keep_scores}
            identity = {"instructmining": version("instructmining"), "scored": source.digest}
            content = _as_json(found, ranking, choice, settings | written.as_json(), extras, rule)
            return found, all_utf8(identity | content)

        if out is None:
            rows = tuple(map(loads, lines))
        elif str(out) != "-":
            files.write(out, lines, lambda: of_run(source.run) | of_selection(finished()[1]))
        source.check_unchanged()
        found, content = finished()
        files.put_in_place(content)
        if out is not None and str(out) == "-":
            files.write("-", lines)
    return found


class _Contents:
    """What is written of each row: its bytes as they were before scoring or with its scores, or another shape."""

    def __init__(self, source: ScoredRows, conversion: Conversion | None, *, keep_scores: bool) -> None:
        self._source, self._conversion, self._keep_scores = source, conversion, keep_scores
        self._converter: Converter | None = None

    def content(self) -> Callable[[SourceRow], bytes]:
        """Return the function for one file; the remarks are about the last one's rows."""
        if self._conversion is not None:
            self._converter = Converter(self._source, self._conversion, keep_scores=self._keep_scores)
            return self._converter.line
        if self._keep_scores:
            return lambda row: row.raw
        return lambda row: without_scores(row, self._source.prefix)

    def remarks(self) -> Iterator[str]:
        """Check the rows that were written, and yield what is to be said about them.

        Raises:
            SelectionError: a field that is to be kept was in no row.
        """
        if self._converter is not None:
            self._converter.check()
            yield from self._converter.remarks()

    def as_json(self) -> dict[str, object]:
        """Return what the selection file says; nothing where rows keep their shape."""
        return {} if self._converter is None else {"converted": self._converter.as_json()}


def _as_text(out: str | Path | None, conversion: Conversion | None) -> Iterator[str]:
    """Yield a line where turns become text, since the file holds no lists."""
    if conversion is not None and conversion.target != "alpaca" and kind_by_name(str(out)).kind == "delimited":
        yield f"{out} holds the turns as JSON text, which trainers do not read: give them .jsonl or .parquet"


def _begun(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Return the lines with the first one made: all rows are read by then."""
    first = next(lines, None)
    return iter(()) if first is None else chain([first], lines)


def chosen(choice: SelectionOptions | None, given: Mapping[str, Any]) -> SelectionOptions:
    """Return the given choice, or make one of the arguments.

    Raises:
        SelectionError: both or neither are given, or the choice has the wrong type.
    """
    used = [
        name for name, value in given.items() if value is not None and not (isinstance(value, Sized) and not len(value))
    ]
    if choice is None:
        return SelectionOptions(**given)
    check(
        "choice",
        choice,
        (SelectionOptions, NoneType),
        wanted="a SelectionOptions, as SelectionOptions(top=3), or the arguments themselves, as top=3",
    )
    if used:
        raise SelectionError(f"both a SelectionOptions and {', '.join(used)} are given; give one or the other")
    return choice


def _rule(scored: str | None, extras: Extras) -> tuple[Rule | None, str]:
    """Return the rule to explain; if it is not known, None and a remark that says why."""
    if extras.explain is None:
        return None, ""
    if extras.rule is not None:
        return extras.rule if isinstance(extras.rule, Rule) else Rule.load(extras.rule), ""
    if scored is None:
        rule, reason = None, "a table in memory has no run file that names its rule"
    else:
        rule, reason = rule_of_run(scored)
    return (
        rule,
        f"{reason}: explanations lack the terms' contributions; give rule (--rule)" if reason else "",
    )


def _selection(
    ranking: Ranking,
    choice: SelectionOptions,
    value: str,
    remarks: tuple[str, ...],
    rows: tuple[Mapping[str, object], ...],
) -> Selection:
    return Selection(
        rows=len(ranking.values),
        without_value=int(np.isnan(ranking.values).sum()),
        kept=len(ranking.kept),
        worst=float(ranking.values[ranking.kept[-1]]) if len(ranking.kept) else None,
        left_out=ranking.left_out(choice, value),
        tokens=ranking.tokens,
        remarks=remarks,
        kept_rows=rows,
    )


def _as_json(
    found: Selection,
    ranking: Ranking,
    choice: SelectionOptions,
    settings: Mapping[str, object],
    extras: Extras,
    rule: Rule | None,
) -> dict[str, object]:
    """Return the content of the selection file, without times, so that equal selections have equal files."""
    baseline = {"file": str(extras.random_baseline), "seed": extras.seed, "rows": found.kept}
    return {
        "choice": choice.as_json(),
        **settings,
        "explained": {"rule": rule.id, "digest": rule.digest} if rule is not None else None,
        "random_baseline": baseline if extras.random_baseline is not None else None,
        "counts": {
            "rows": found.rows,
            "candidates": len(ranking.order),
            "kept": found.kept,
            "left_out": dict(found.left_out),
            "groups": _groups_as_json(ranking),
        },
        "tokens": found.tokens,
        "worst": found.worst,
        "remarks": list(found.remarks),
    }


def _short(ranking: Ranking, choice: SelectionOptions) -> Iterator[str]:
    if ranking.groups is None:
        return short_of_wanted(choice, len(ranking.kept))
    return short_of_wanted(choice, len(ranking.kept), ranking.groups.names, ranking.counts_of(ranking.kept))


def _groups_as_json(ranking: Ranking) -> Mapping[str, object] | None:
    if ranking.groups is None:
        return None
    candidates, kept = ranking.counts_of(ranking.order), ranking.counts_of(ranking.kept)
    return groups_as_json(ranking.groups.names, candidates, ranking.room, kept)
