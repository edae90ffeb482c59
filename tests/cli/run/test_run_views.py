from __future__ import annotations

import io
import time
from collections import Counter
from types import SimpleNamespace

from rich.console import Console

from instructmining.writing.statistics import Statistics
from instructmining_cli.run.run_views import closing_table, live_view
from instructmining_scale.runs.scoring_run import Run


def a_run() -> Run:
    """A run of ten seconds over a thousand rows, a quarter of them done."""
    counts = Statistics(rows_computed=250.0)
    counts.tokens.update({"reward+perplexity": 5000, "embedding": 800})
    counts.seconds.update({"model:reward+perplexity:conversation": 5.0, "model:embedding:document": 2.0, "read": 9.0})
    counts.busy["cpu (2 threads)"] = 7.0
    counts.truncated.update({"reward": 3, "embedding": 1234})
    run = Run(
        SimpleNamespace(bundle=SimpleNamespace(roles=["reward", "perplexity", "embedding"])),  # type: ignore[arg-type]
        ["rows.jsonl"],
        "out.jsonl",
        {},
        statistics=counts,
        reader=SimpleNamespace(rows_expected=1000.0, rejected=12, unread={}),  # type: ignore[arg-type]
        rows_written=1238,
        nulls=Counter({"knn_6": 5, "predicted_log_loss": 5}),
        unpredicted=5,
        null_reason="knn_6: 5 rows in the run",
        reject_reason="invalid \x1b[2J JSON",
        began=time.perf_counter() - 10,
    )
    assert run.rejected == 12
    return run


def drawn(width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width, soft_wrap=True).print(live_view(a_run()))
    return file.getvalue()


def test_the_live_view_shows_rows_speed_time_left_busy_share_rejected_and_truncated() -> None:
    lines = drawn(80).splitlines()
    assert lines[0].startswith("scoring     ")
    assert " 26% 250 rows, 25.0 rows/s, 28." in lines[0]
    assert lines[0].rstrip().endswith(" s left")
    assert lines[1:] == [
        "tokens/s    reward+perplexity 1,000, embedding 400",
        "busy        cpu (2 threads) 70%",
        "rejected    12 rows",
        "truncated   reward 3, embedding 1,234",
        "null        knn_6 5, predicted_log_loss 5",
    ]


def test_the_live_view_has_the_same_lines_at_any_width() -> None:
    for width in (20, 40, 60):
        lines = drawn(width).splitlines()
        assert len(lines) == 6
        assert max(map(len, lines)) <= width


def test_the_search_of_neighbours_is_a_stage_of_its_own() -> None:
    run = a_run()
    run.statistics.neighbours_done, run.statistics.neighbours_wanted = 500, 1000
    file = io.StringIO()
    Console(file=file, width=80).print(live_view(run))
    assert file.getvalue().startswith("neighbours  ")
    assert " 50% 500 of 1,000 rows" in file.getvalue()


def test_the_closing_table_says_what_became_of_the_rows_and_how_fast_it_was() -> None:
    *lines, last = closing_table(a_run())
    assert lines == [
        "scored      1,238 rows: out.jsonl",
        "rejected    12 rows; out.jsonl.rejects.jsonl; the first because invalid \\u001b[2J JSON",
        "truncated   reward 3, embedding 1,234",
        "null        knn_6 5, predicted_log_loss 5; the first row without a prediction because "
        "knn_6: 5 rows in the run",
        "tokens/s    reward+perplexity 1,000, embedding 400",
        "busy        cpu (2 threads) 70%",
    ]
    assert last.startswith("time        10.0 s, 25.0 rows/s, 580 tokens/s")
