"""A scored file is an input like any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pandas as pd
import pytest
from paths import EXAMPLES

from instructmining import Scorer, score_table

ROWS = EXAMPLES / "alpaca.json"
PAIRS = EXAMPLES / "formats" / "preference.jsonl"

Run = Callable[..., int]


@pytest.fixture
def score(run: Run, small_bundle: Path) -> Callable[..., bytes]:
    """Scores and returns OUT's bytes."""

    def call(source: Path, out: Path, *options: str | Path, bundle: Path = small_bundle) -> bytes:
        assert run("score", source, "-o", out, "--bundle", bundle, "--device", "cpu", *options) == 0
        return out.read_bytes()

    return call


@pytest.mark.parametrize("source", [ROWS, PAIRS])
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_what_is_missing_is_computed_and_the_rest_kept(
    score: Callable[..., bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str], source: Path, suffix: str
) -> None:
    first, both, whole = (tmp_path / f"{name}{suffix}" for name in ("first", "both", "whole"))
    score(source, first, "--indicators", "reward,output_length")
    found = score(first, both, "--indicators", "ifd,mtld")
    assert "kept: output_length, reward (--recompute computes them again)" in capsys.readouterr().err
    wanted = score(source, whole, "--indicators", "reward,output_length,ifd,mtld")
    if suffix != ".parquet":  # which has a schema of the file that was read
        assert found == wanted
    run_file = orjson.loads(Path(f"{both}.run.json").read_bytes())
    assert run_file["settings"]["columns"] == ["mtld", "ifd"]
    assert run_file["settings"]["kept"] == ["output_length", "reward"]


def test_kept_columns_are_terms_of_the_rule(score: Callable[..., bytes], tmp_path: Path) -> None:
    score(ROWS, tmp_path / "first.jsonl", "--indicators", "reward,knn_6,mtld")
    found = score(tmp_path / "first.jsonl", tmp_path / "both.jsonl", "--rule", "paper-v1")
    assert found == score(ROWS, tmp_path / "whole.jsonl", "--rule", "paper-v1", "--indicators", "mtld")
    assert score(tmp_path / "both.jsonl", tmp_path / "again.jsonl", "--rule", "paper-v1") == found


def test_kept_values_are_not_computed_again(score: Callable[..., bytes], tmp_path: Path) -> None:
    score(ROWS, tmp_path / "first.jsonl", "--indicators", "reward")
    rows = [orjson.loads(line) | {"reward": 7.5} for line in (tmp_path / "first.jsonl").read_bytes().splitlines()]
    (tmp_path / "first.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    kept = score(tmp_path / "first.jsonl", tmp_path / "kept.jsonl", "--indicators", "reward,mtld")
    assert {orjson.loads(line)["reward"] for line in kept.splitlines()} == {7.5}
    anew = score(tmp_path / "first.jsonl", tmp_path / "anew.jsonl", "--indicators", "mtld", "--recompute")
    assert 7.5 not in {orjson.loads(line)["reward"] for line in anew.splitlines()}


def test_recompute_asks_for_a_rule_where_predictions_have_none_that_is_known(
    run: Run, score: Callable[..., bytes], small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = score(ROWS, tmp_path / "first.jsonl", "--rule", "paper-v1")
    again = score(tmp_path / "first.jsonl", tmp_path / "again.jsonl", "--recompute", "--indicators", "reward")
    assert again == found
    Path(f"{tmp_path / 'first.jsonl'}.run.json").unlink()
    out = ["-o", tmp_path / "x.jsonl", "--bundle", small_bundle]
    assert run("score", tmp_path / "first.jsonl", *out, "--recompute", "--indicators", "reward") == 1
    assert "--rule" in capsys.readouterr().err


def test_another_bundle_or_rule_is_said(
    score: Callable[..., bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tmp_path / "first.jsonl"
    score(ROWS, first, "--rule", "paper-v1")
    run_file = Path(f"{first}.run.json")
    run = orjson.loads(run_file.read_bytes())
    run["bundle"] |= {"digest": "other", "name": "theirs"}
    run["rule"] |= {"digest": "other", "id": "mine"}
    run_file.write_bytes(orjson.dumps(run))
    capsys.readouterr()
    score(first, tmp_path / "both.jsonl", "--rule", "paper-v1", "--indicators", "mtld")
    said = capsys.readouterr().err
    assert "computed with another bundle: 'theirs'" in said
    assert "predictions of the rule 'mine' are replaced by those of 'paper-v1'" in said
    run_file.unlink()
    score(first, tmp_path / "more.jsonl", "--indicators", "mtld")
    assert f"the bundle that computed them is not known for {first}" in capsys.readouterr().err


def test_a_row_without_the_columns_of_the_others_is_a_reject(
    run: Run, score: Callable[..., bytes], small_bundle: Path, tmp_path: Path
) -> None:
    first = tmp_path / "first.jsonl"
    score(ROWS, first, "--indicators", "reward")
    with first.open("ab") as file:
        file.write(b'{"instruction": "a", "output": "b"}\n')
    out = tmp_path / "both.jsonl"
    assert run("score", first, "-o", out, "--bundle", small_bundle, "--indicators", "mtld") == 3
    (reject,) = Path(f"{out}.rejects.jsonl").read_bytes().splitlines()
    assert "the row was not scored with reward" in orjson.loads(reject)["reason"]


def test_scored_and_other_files_together_keep_nothing(score: Callable[..., bytes], tmp_path: Path) -> None:
    first = tmp_path / "first.jsonl"
    score(ROWS, first, "--indicators", "reward")
    both = score(first, tmp_path / "both.jsonl", ROWS, "--indicators", "mtld")
    scored, plain = both.splitlines()[:8], both.splitlines()[8:]
    assert all("reward" in orjson.loads(line) for line in scored)  # what a row has it keeps
    assert not any("reward" in orjson.loads(line) for line in plain)


def test_recompute_alone_computes_all_that_is_there_and_the_bundles_own_rule(
    score: Callable[..., bytes], tmp_path: Path
) -> None:
    first = tmp_path / "first.jsonl"
    score(ROWS, first, "--indicators", "mtld,reward")
    rows = [orjson.loads(line) | {"mtld": -99.0} for line in first.read_bytes().splitlines()]
    first.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    anew = score(first, tmp_path / "anew.jsonl", "--recompute")
    wanted = score(ROWS, tmp_path / "whole.jsonl", "--rule", "paper-v1", "--indicators", "mtld")
    assert list(map(orjson.loads, anew.splitlines())) == list(map(orjson.loads, wanted.splitlines()))


def test_distances_to_other_neighbours_are_not_kept(score: Callable[..., bytes], tmp_path: Path) -> None:
    first = tmp_path / "first.jsonl"
    score(ROWS, first, "--indicators", "knn_1")
    twice = score(first, tmp_path / "twice.jsonl", first, "--indicators", "knn_1,mtld")
    assert {orjson.loads(line)["knn_1"] for line in twice.splitlines()} == {0.0}
    cosine = score(first, tmp_path / "cosine.jsonl", "--indicators", "knn_1", "--knn-metric", "cosine")
    assert cosine == score(ROWS, tmp_path / "wanted.jsonl", "--indicators", "knn_1", "--knn-metric", "cosine")
    kept = score(first, tmp_path / "kept.jsonl", "--indicators", "knn_1,mtld")
    assert [orjson.loads(line)["knn_1"] for line in kept.splitlines()] == [
        orjson.loads(line)["knn_1"] for line in first.read_bytes().splitlines()
    ]


def test_a_plain_row_does_not_take_the_columns_of_a_pair(
    run: Run, score: Callable[..., bytes], small_bundle: Path, tmp_path: Path
) -> None:
    first = tmp_path / "first.jsonl"
    score(PAIRS, first, "--indicators", "reward")
    out = ["-o", tmp_path / "out.jsonl", "--bundle", small_bundle, "--indicators", "reward,mtld"]
    options = ["--map", "prompt=prompt,response=chosen", "--ignore", "rejected"]
    assert run("score", first, *out, *options) == 3
    (reject,) = Path(f"{tmp_path / 'out.jsonl'}.rejects.jsonl").read_bytes().splitlines()
    assert "was not scored with reward" in orjson.loads(reject)["reason"]


def test_scores_that_went_through_csv_are_kept(score: Callable[..., bytes], tmp_path: Path) -> None:
    first = tmp_path / "first.jsonl"
    score(ROWS, first, "--indicators", "reward,mtld")
    table = pd.DataFrame([orjson.loads(line) for line in first.read_bytes().splitlines()])
    for name in ("truncated", "score_notes"):
        table[name] = [orjson.dumps(value).decode() for value in table[name]]
    table.to_csv(tmp_path / "first.csv", index=False)
    found = score(tmp_path / "first.csv", tmp_path / "out.jsonl", "--indicators", "reward,mtld,output_length")
    wanted = score(first, tmp_path / "wanted.jsonl", "--indicators", "reward,mtld,output_length")
    for one, other in zip(found.splitlines(), wanted.splitlines(), strict=True):
        assert orjson.loads(one)["reward"] == orjson.loads(other)["reward"]


def test_tables_that_were_scored_get_no_column_twice(small_bundle: Path) -> None:
    rows = [{"prompt": "a", "response": "b c"}, {"prompt": "d", "response": "e"}]
    with Scorer.open(small_bundle, indicators="mtld", device="cpu") as scorer:
        once = score_table(scorer, rows)
    with Scorer.open(small_bundle, indicators="reward", device="cpu") as scorer:
        both = score_table(scorer, once)
    assert both.column_names == ["prompt", "response", "reward", "mtld", "truncated", "score_notes"]
    assert both.column("mtld").equals(once.column("mtld"))
