from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def scored(write_rows: Callable[..., Path]) -> Path:
    notes = {"truncated": [], "score_notes": {}}
    rows = [
        {"instruction": "a", "output": "b", "mtld": float(at**2 % 7), "perplexity": 9.0 - at, **notes}
        for at in range(12)
    ]
    return write_rows(*rows, name="scored.jsonl")


def test_a_pool_goes_to_r_select_and_its_trials_come_back_as_runs_that_fit_reads(
    run: Callable[..., int], scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool, trials, runs = (tmp_path / name for name in ("pool.jsonl", "trials.json", "runs.csv"))
    assert run("experiment", "export-oda", scored, "-o", pool, "--rows") == 0
    assert capsys.readouterr().err == f"wrote 12 rows with perplexity, mtld: {pool}\n"
    weights = [0.0, 0.1, 0.2, 0.35, 0.5, 0.6, 0.8, 1.0]
    trials.write_text(
        json.dumps(
            [
                {"weights": {"perplexity": one, "mtld": 1 - one}, "eval_loss": 2 + one + 0.05 * (at % 2)}
                for at, one in enumerate(weights)
            ]
        )
    )
    assert run("experiment", "import-oda", pool, "--trials", trials, "--top-k", "4", "-o", runs) == 0
    assert capsys.readouterr().err == f"8 runs with the means of perplexity, mtld: {runs}\n"
    assert run("fit", runs, "-o", tmp_path / "rule.json", "--bootstrap", "0") == 0
    assert json.loads((tmp_path / "rule.json").read_bytes())["terms"]


def test_scores_are_added_and_counted(
    run: Callable[..., int], scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    oda, out = tmp_path / "oda.jsonl", tmp_path / "joined.jsonl"
    assert run("experiment", "export-oda", scored, "-o", oda, "--quiet") == 0
    assert run("experiment", "import-oda", scored, oda, "-o", out, "--json") == 0
    shown = capsys.readouterr()
    assert shown.err == f"added oda.perplexity, oda.mtld to 12 rows: {out}\n"
    assert json.loads(shown.out)["fields"] == ["oda.perplexity", "oda.mtld"]
    assert run("select", out, "-o", "-", "--by", "oda.perplexity", "--top", "1", "--where", "oda.mtld<=3") == 0
    assert json.loads(capsys.readouterr().out)["oda.perplexity"] == -2.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "wanted SCORES or --trials, and not both"),
        (("a.jsonl", "--trials", "b.json", "--top-k", "1"), "wanted SCORES or --trials, and not both"),
        (("--trials", "b.json"), "--trials and --top-k belong together"),
        (("--trials", "b.json", "--top-k", "1", "-o", "runs.json"), "runs.json: with --trials, wanted a name ending"),
        (("a.jsonl", "-o", "out.txt"), "out.txt: wanted a name ending in .jsonl"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run("experiment", "import-oda", "rows.jsonl", "-o", "x.jsonl", *arguments) == 2
    assert message in capsys.readouterr().err
