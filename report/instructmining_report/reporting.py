"""Makes a report: reads the sets, computes figures, draws them and writes the page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from instructmining.errors import SelectionError
from instructmining.errors.arguments import check_type
from instructmining.reading.arrow import is_table
from instructmining.reading.objects import is_objects
from instructmining.reading.rows import Source
from instructmining.rules import Rule
from instructmining.scored.describe import described
from instructmining.scored.scored_file import ScoredRows, not_scored
from instructmining.scored.selection.explanations import rule_of_run
from instructmining.types import PREDICTION
from instructmining.writing.atomic import STANDARD, Placement
from instructmining.writing.standard_streams import standard_output
from instructmining_report.figures.ordering import order_column
from instructmining_report.figures.terms import rows_of_another_rule
from instructmining_report.gathering.scored_set import ScoredSet, read_set, with_values_of
from instructmining_report.options import ReportOptions
from instructmining_report.page.view import MOST_SETS, PageContent, page_of

_SUFFIXES = (".html", ".htm")


@dataclass(frozen=True, slots=True)
class Report:
    """What was written."""

    out: str | None  # None where no file was asked for
    size: int  # bytes of the page
    rows: dict[str, int]  # rows by set
    seconds: float
    remarks: tuple[str, ...]  # what could not be shown, and why
    html: bytes


def report(
    scored: Source | Sequence[Source],
    out: str | Path | None = None,
    options: ReportOptions | None = None,
    *,
    overwrite: bool = False,
) -> Report:
    """Write one page about scored sets that opens without a network.

    Reads each file once, and its beginning up to the last row shown once more for the examples. Memory holds some 100
    bytes per row and one column at a time; the numbers wait in temporary files. The same files and options give the
    same bytes.

    Args:
        scored: one or more files that ``score`` wrote, or tables of scored rows in memory. The first is the whole set,
            which the others are compared with; these may lack scores where their rows are in another one.
        out: an .html file; "-" for standard output; None writes nothing, and the page is in ``html``.
        options: what is shown.
        overwrite: replace the file.

    Raises:
        InputError: a file cannot be read, or changed meanwhile.
        SelectionError: a line is not a row or lacks a column, no set has scores, or an option does not fit the rows.
        RuleError: the rule cannot be read, or the rows lack one of its terms.
        OutputError: the file exists, is one that is read, or cannot be written.

    Example:
        >>> from instructmining_report import report
        >>> report(["scored.jsonl", "best.jsonl"], "report.html").size  # doctest: +SKIP
    """
    began = time.monotonic()
    options = options or ReportOptions()
    check_type("options", options, ReportOptions, wanted="ReportOptions", error=SelectionError)
    sources = _sources(scored)
    check_type("out", out, (str, Path, type(None)), wanted='a path, "-" or None', error=SelectionError)
    if out not in STANDARD and not str(out).lower().endswith(_SUFFIXES):
        raise SelectionError(f"{out}: wanted a name ending in {' or '.join(_SUFFIXES)}, or - for standard output")
    opened = [ScoredRows(source, prefix=options.prefix) for source in sources]
    reads = [path for one in opened for path in (*one.files, f"{one.path}.selection.json", f"{one.path}.rejects.jsonl")]
    rule_file = options.rule if isinstance(options.rule, (str, Path)) else None
    with Placement([out], overwrite=overwrite, reads=[*reads, rule_file]) as files, ExitStack() as stores:
        content = _content(opened, options, stores)
        page = page_of(content)
        for one in content.sets:
            one.source.check_unchanged()
        if out is not None and out not in STANDARD:
            files.write(out, page)
            files.put()
    if out == "-":
        stream = standard_output()
        stream.write(page)
        stream.flush()
    return Report(
        out=None if out is None else str(out),
        size=len(page),
        rows={one.label: one.rows for one in content.sets},
        seconds=time.monotonic() - began,
        remarks=content.remarks,
        html=page,
    )


def _sources(scored: Source | Sequence[Source]) -> list[Source]:
    """Return the sources of a call.

    Raises:
        SelectionError: there is none, or there are too many.
    """
    if isinstance(scored, (str, Path)) or is_table(scored) or is_objects(scored):
        return [scored]
    if not isinstance(scored, (list, tuple)) or not scored:
        raise SelectionError("scored names no file; give one or more files that score wrote")
    if len(scored) > MOST_SETS:
        raise SelectionError(f"{len(scored)} sets are more than a page can show side by side; give at most {MOST_SETS}")
    return list(scored)


def _content(opened: Sequence[ScoredRows], options: ReportOptions, stores: ExitStack) -> PageContent:
    if not any(one.columns for one in opened) and any(one.fields for one in opened):
        raise SelectionError(not_scored([one.name for one in opened]))
    if options.by is not None:  # before anything is read
        for one in opened:
            order_column([] if options.by.endswith("predicted_log_loss") else one.columns, options, one.name)
    rule, remark = _rule(opened, options)
    labels = _labels([one.name for one in opened])
    named = rule if options.rule is not None else None
    sets = [read_set(one, label, named, options, stores) for one, label in zip(opened, labels, strict=True)]
    lender = next((one for one in sets if one.columns), None)
    if lender is not None:
        sets = [one if one.columns else with_values_of(one, lender, stores) for one in sets]
    descriptions = [
        described(
            one.label,
            one.store,
            one.columns,
            one.truncation,
            one.few_tokens,
            rule=_applicable(one, rule) if one.parts == ("",) else None,
        )
        for one in sets
    ]
    shown = _applicable(sets[0], rule)
    if shown is None and rule is not None:
        remark = f"{sets[0].source.name} lacks a term of rule {rule.id!r}, which its run file names"
    elif shown is not None and (rows := rows_of_another_rule(sets[0], shown)):
        remark = (
            f"{rows:,} of the predictions in {sets[0].source.name} are not those of rule {shown.id!r}; rescore it first"
        )
        shown = None
    elif options.rule is None and not any(column.endswith(PREDICTION) for column in sets[0].columns):
        remark = ""  # nobody asked for a rule
    if remark:
        remark = f"the terms of the rule are not shown: {remark}"
    return PageContent(tuple(sets), tuple(descriptions), shown, options, (remark,) if remark else ())


def _applicable(one: ScoredSet, rule: Rule | None) -> Rule | None:
    """Return the rule where the set has its terms under their own names or those of sides, else None."""
    if rule is None or not all(f"{part}{term}" in one.store.names for part in one.parts for term in rule.terms):
        return None
    return rule


def _rule(opened: Sequence[ScoredRows], options: ReportOptions) -> tuple[Rule | None, str]:
    """Return the rule whose terms are shown, or why none is."""
    if options.rule is not None:
        return options.rule if isinstance(options.rule, Rule) else Rule.load(options.rule), ""
    if opened[0].path is None:
        return None, "a table in memory has no run file that names its rule"
    return rule_of_run(opened[0].path)


def _labels(names: Sequence[str]) -> list[str]:
    """Return short unique names: those of the files without suffix, where they differ."""
    stems = [Path(name).name.split(".")[0] or name for name in names]
    found: list[str] = []
    for stem, name in zip(stems, names, strict=True):
        label = stem if stems.count(stem) == 1 else name
        same = sum(one == label or one.startswith(f"{label} (") for one in found)
        found.append(f"{label} ({same + 1})" if same else label)
    return found
