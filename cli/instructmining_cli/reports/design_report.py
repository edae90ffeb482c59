"""The design of an experiment as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence

from instructmining_experiments.designing.design import Design
from instructmining_experiments.designing.drawing import POOL_PER_SUBSET, TOLERANCE
from instructmining_experiments.designing.power import LEVEL, POWER
from instructmining_scale.wording import duration, rows_of

_HOUR_S = 3600


def figures_of(design: Design, out: str, tokens_per_second: float | None) -> dict[str, object]:
    """Return the design as JSON, with the folder and the hours; null where no speed is given."""
    hours = None if tokens_per_second is None else design.cost.hours(tokens_per_second)
    return {"out": out, "new": design.new, **design.as_json(), "hours": hours}


def as_text(design: Design, tokens_per_second: float | None) -> str:
    """Return the design as lines."""
    plan, cost = design.plan, design.cost
    scored = sum(file.rows for file in plan.files)
    kinds = [run.kind for run in plan.runs]
    left = [f"{rows_of(rows)} {why}" for why, rows in design.left.items() if rows]
    lines = [
        f"pool: {rows_of(scored)} scored; {rows_of(design.drawable_rows)} to draw from, "
        f"{design.drawable_tokens:,} tokens",
        *([f"  not drawn from: {'; '.join(left)}"] if left else []),
        *([f"  null: {', '.join(f'{name} {rows:,}' for name, rows in design.null.items())}"] if design.null else []),
        *([] if design.embedded else ["  the bundle has no embedding role: near rows are those of the same prompt"]),
        "evaluation: " + ", ".join(f"{one.name} ({rows_of(len(one.rows))} of {one.source})" for one in plan.evaluation),
        f"runs: {kinds.count('random')} random, {kinds.count('tilted')} tilted, {kinds.count('replicate')} replicates; "
        f"{plan.subset_tokens:,} tokens each within {TOLERANCE:.0%} ({cost.least_tokens:,} to {cost.most_tokens:,})",
        f"cost: {cost.total_tokens:,} tokens to train on in one pass, "
        f"and {cost.evaluation_tokens:,} to evaluate after each run; {_time(design, tokens_per_second)}",
        f"detects, in {POWER:.0%} of experiments at the {LEVEL:.0%} level: {_detectable(design)}",
        "",
        *_table(
            ["spread of set means", "random", "tilted", "ratio"],
            [_spread(name, spread.random, spread.tilted) for name, spread in design.spread.items()],
        ),
        *_cautions(design),
    ]
    return "\n".join(lines)


def _time(design: Design, tokens_per_second: float | None) -> str:
    if tokens_per_second is None:
        return "the time is not measured on this device yet (--tokens-per-second N says it)"
    hours = design.cost.hours(tokens_per_second)
    return f"{duration(hours * _HOUR_S)} of training at {tokens_per_second:,.0f} tokens/s"


def _detectable(design: Design) -> str:
    found = design.detectable
    if found.correlation is None:
        return f"nothing; {found.runs} runs are too few"
    parts = [f"a correlation of {found.correlation:.2f}"]
    if found.one_term_r2 is None or found.all_terms_r2 is None:
        return f"{parts[0]}; no rule of {found.terms} terms, which needs more than {found.terms + 1} runs"
    beside = "" if found.terms == 1 else f" for one term beside the {found.terms - 1} others"
    parts.append(f"a partial R² of {found.one_term_r2:.2f}{beside}")
    parts += [f"an R² of {found.all_terms_r2:.2f} for all {found.terms}"] if found.terms > 1 else []
    return "; ".join(parts)


def _cautions(design: Design) -> list[str]:
    """Return what will stand in the way of a later step."""
    found = []
    wanted = POOL_PER_SUBSET * design.plan.subset_tokens
    if design.plan.reserved and design.reserved_tokens < wanted:
        found.append(
            f"caution: compare cannot select from the reserve: it has {design.reserved_tokens:,} tokens, and "
            f"selections of {design.plan.subset_tokens:,} want {wanted:,}; give a larger --reserve, or compare on new "
            "files"
        )
    narrow = [
        name
        for name, spread in design.spread.items()
        if spread.random is not None and spread.tilted is not None and spread.tilted < spread.random
    ]
    if narrow:
        found.append(
            f"caution: a few rows with extreme values decide the set means of {', '.join(narrow)}: tilted subsets "
            "spread them less than random ones"
        )
    return ["", *found] if found else []


def _spread(name: str, random: float | None, tilted: float | None) -> list[str]:
    ratio = f"{tilted / random:.1f}" if random and tilted is not None else "-"
    return [name, *("-" if value is None else f"{value:.4g}" for value in (random, tilted)), ratio]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    lines = []
    for first, *numbers in (head, *rows):
        cells = [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return lines
