"""A comparison of selections as text."""

from __future__ import annotations

from collections.abc import Iterator

from instructmining.scored.aligning import aligned, wrapped
from instructmining_experiments.comparing.comparison import Comparison
from instructmining_experiments.comparing.figures import CONFIDENCE, Difference, MethodFigures
from instructmining_experiments.comparing.selections import ALL
from instructmining_scale.wording import rows_of

_HEAD = (
    *("", "rows", "tokens", "of responses", "runs", "loss", "sd of runs", "minus random"),
    f"{100 * CONFIDENCE:g} % interval",
)


def as_text(found: Comparison, width: int | None = None) -> str:
    """Return a table for each evaluation set, the rows by file, and the sentence.

    Args:
        found: the comparison.
        width: most characters of a line; None for no limit.
    """
    blocks = [list(_heading(found, width))]
    blocks += [list(_table(found, name, width)) for name in found.base]
    blocks += [list(_files(found, width)), [wrapped(found.sentence, width, indent=0)]]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _heading(found: Comparison, width: int | None) -> Iterator[str]:
    plan = found.plan
    left = [f"{rows_of(rows)} {why}" for why, rows in plan.left.items() if rows]
    yield wrapped(
        f"selected from {rows_of(plan.candidates)} that no run has seen, {plan.candidate_tokens:,} tokens; "
        f"{plan.subset_tokens:,} tokens each; rule {plan.rule!r}",
        width,
    )
    if left:
        yield wrapped(f"not selected from: {'; '.join(left)}", width)
    if plan.left_out_methods:
        yield wrapped(
            f"left out, without a column or an embedding role for them: {', '.join(plan.left_out_methods)}", width
        )


def _table(found: Comparison, name: str, width: int | None) -> Iterator[str]:
    figures = [one for one in found.figures if one.evaluation_set == name]
    yield f"{name}: loss before training {found.base[name]:.4f}"
    if figures:
        yield aligned([_HEAD, *(_cells(one) for one in figures if one.method != ALL)], width)
    for one in figures:
        if one.method == ALL:
            yield wrapped(f"all {one.rows:,.0f} rows once, {one.tokens:,.0f} tokens: {one.loss:.4f}", width)


def _cells(one: MethodFigures) -> tuple[str, ...]:
    return (
        one.method,
        f"{one.rows:.0f}",
        f"{one.tokens:,.0f}",
        f"{one.response_tokens:,.0f}",
        str(one.runs),
        f"{one.loss:.4f}",
        "" if one.deviation is None else f"{one.deviation:.4f}",
        *_difference(one.minus_random),
    )


def _difference(found: Difference | None) -> tuple[str, str]:
    return ("", "") if found is None else (f"{found.value:+.4f}", f"{found.low:+.4f} to {found.high:+.4f}")


def _files(found: Comparison, width: int | None) -> Iterator[str]:
    if len(found.plan.files) < 2:
        return
    yield "rows of each file"
    for method in dict.fromkeys(one.method for one in found.figures):
        files = ", ".join(f"{file} {rows}" for file, rows in found.plan.from_files(method).items())
        yield wrapped(f"  {method}: {files}", width, indent=4)
