"""A scoring run as a live view and as a closing table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from instructmining.tables.controls import visible
from instructmining_scale.runs.scoring_run import Run
from instructmining_scale.wording import duration, rows_of

_BAR_WIDTH = 16
_INDENT = 12  # column where the text after a name starts


def live_view(run: Run) -> Group:
    """Draw progress, speed and counts so far; lines are cut at the width of the terminal."""
    statistics = run.statistics
    if statistics.neighbours_done:
        stage, done = "neighbours", statistics.neighbours_done / statistics.neighbours_wanted
        text = f"{statistics.neighbours_done:,} of {statistics.neighbours_wanted:,} rows"
    else:
        stage, (done, left_s) = "scoring", run.share_done()
        left = "" if left_s is None else f", {duration(left_s)} left"
        text = f"{statistics.rows_computed:,.0f} rows, {run.speed[0]:,.1f} rows/s{left}"
    head = Table.grid(padding=(0, 1))
    for _ in range(3):
        head.add_column(no_wrap=True)
    head.add_column(no_wrap=True, overflow="ellipsis")
    bar = ProgressBar(total=1.0, completed=done, width=_BAR_WIDTH)
    head.add_row(f"{stage:<{_INDENT - 1}}", bar, f"{done:4.0%}", text)
    lines = [("tokens/s", _speeds(run)), ("busy", _shares(run)), *_losses(run)]
    return Group(head, *(Text(_line(*line), no_wrap=True, overflow="ellipsis") for line in lines))


def closing_table(run: Run) -> Iterator[str]:
    """Yield the lines of the summary: a name, and its text from column 12 on."""
    earlier = run.from_before.rows - run.from_before.rejected
    before = f", {earlier:,} of them before it was resumed" if earlier else ""
    rejected = f"; {run.rejects_place}; the first because {run.reject_reason}" if run.rejected else ""
    null = f"; the first row without a prediction because {run.null_reason}" if run.unpredicted else ""
    more = {"rejected": rejected, "null": null}
    yield _line("scored", f"{rows_of(run.rows_written)}{before}: {run.out}")
    yield from (_line(name, f"{text}{more.get(name, '')}") for name, text in _losses(run))
    yield _line("tokens/s", _speeds(run))
    yield _line("busy", _shares(run))
    yield _line("time", f"{duration(run.elapsed_s)}, {run.speed[0]:,.1f} rows/s, {run.speed[1]:,.0f} tokens/s")


def _losses(run: Run) -> Iterator[tuple[str, str]]:
    yield "rejected", rows_of(run.rejected)
    yield "truncated", _counted(run.truncated)
    yield "null", _counted(run.nulls)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {rows:,}" for name, rows in counts.items() if rows) or "none"


def _speeds(run: Run) -> str:
    return ", ".join(f"{roles} {speed:,.0f}" for roles, speed in run.role_speeds.items()) or "no model has run"


def _shares(run: Run) -> str:
    return ", ".join(f"{device} {share:.0%}" for device, share in run.busy_shares.items()) or "no device was used"


def _line(name: str, text: str) -> str:
    return visible(f"{name:<{_INDENT}}{text}")
