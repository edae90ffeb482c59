"""Neighbours over all shards: those of one run, whether searched at once, in pairs of shards, or partly."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from cut_runs import CUT, Command
from cut_runs import write_rows as write_many
from paths import EXAMPLES

from instructmining.writing.journal import SPOOLED
from instructmining_scale.plan import Plan

Run = Callable[..., int]
BLOCKS = ("--device", "cpu", "--block-bytes", "3000")
COLUMNS = ("--indicators", "knn_1,knn_6,perplexity,ifd", "--rule", "paper-v1")
SHARDS = 4


@pytest.fixture
def score(run: Run, small_bundle: Path) -> Run:
    def call(*arguments: str | Path) -> int:
        return run("score", *arguments, "--bundle", small_bundle, *BLOCKS)

    return call


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    write_many(path, 120)
    with path.open("ab") as file:  # equal rows in different shards
        file.write(path.read_bytes()[:4000].rpartition(b"\n")[0] + b"\n")
    return path


def _all_shards(score: Run, rows: Path, parts: Path, *arguments: str, shards: int = SHARDS) -> None:
    numbers = list(range(1, shards + 1))
    random.Random(0).shuffle(numbers)
    for number in numbers:
        assert score(rows, "-o", parts, "--shard", f"{number}/{shards}", *arguments) in {0, 3}


def _same(one: Path, merged: Path) -> None:
    for end in ("", ".rejects.jsonl"):
        assert Path(f"{merged}{end}").read_bytes() == Path(f"{one}{end}").read_bytes()


@pytest.mark.parametrize("searched", ["at once", "in pairs", "some pairs"])
def test_neighbours_are_those_of_one_run(score: Run, run: Run, tmp_path: Path, rows: Path, searched: str) -> None:
    one, parts, merged = tmp_path / "one.jsonl", tmp_path / "parts", tmp_path / "merged.jsonl"
    assert score(rows, "-o", one, *COLUMNS) == 3
    _all_shards(score, rows, parts, *COLUMNS)
    if searched == "in pairs":
        assert run("neighbours", parts) == 0
        assert len(list(parts.glob("neighbours-*"))) == SHARDS * (SHARDS + 1) // 2
    if searched == "some pairs":
        assert run("neighbours", parts, "--pair", "3,2") == 0
        assert [path.name for path in parts.glob("neighbours-*")] == ["neighbours-00002-00003.npz"]
    assert run("merge", parts, "-o", merged) == 3
    _same(one, merged)
    counted, wanted = (orjson.loads(Path(f"{path}.run.json").read_bytes())["counts"] for path in (merged, one))
    assert {name: counted[name] for name in ("rows_out", "rows_rejected", "null")} == {
        name: wanted[name] for name in ("rows_out", "rows_rejected", "null")
    }


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_rows_that_waited_are_written_in_each_kind_of_file(
    score: Run, run: Run, tmp_path: Path, rows: Path, suffix: str
) -> None:
    one, parts, merged = tmp_path / f"one{suffix}", tmp_path / "parts", tmp_path / f"merged{suffix}"
    assert score(rows, "-o", one, "--indicators", "knn_2") == 3
    _all_shards(score, rows, parts, "--indicators", "knn_2")
    assert run("merge", parts, "-o", merged) == 3
    _same(one, merged)


@pytest.mark.parametrize("pairs", [True, False])
def test_the_sides_of_preference_pairs_are_no_neighbours_of_each_other(
    score: Run, run: Run, tmp_path: Path, *, pairs: bool
) -> None:
    rows, one, merged = tmp_path / "pairs.jsonl", tmp_path / "one.jsonl", tmp_path / "merged.jsonl"
    lines = [
        {"prompt": f"question {number}", "chosen": f"good {number % 5}", "rejected": f"bad {number % 3}"}
        for number in range(120)
    ]
    rows.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    options = ("--indicators", "knn_3,knn_1,mtld", "--prefix", "im_")
    assert score(rows, "-o", one, *options) == 0
    _all_shards(score, rows, tmp_path / "parts", *options)
    if pairs:
        assert run("neighbours", tmp_path / "parts") == 0
    assert run("merge", tmp_path / "parts", "-o", merged) == 0
    _same(one, merged)


@pytest.mark.parametrize("options", [("--pool", "kind"), ("--knn-text", "prompt"), ("--knn-metric", "cosine")])
def test_other_neighbours_than_those_among_all_rows_are_those_of_one_run(
    score: Run, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, str]
) -> None:
    rows, one, merged = tmp_path / "rows.jsonl", tmp_path / "one.jsonl", tmp_path / "merged.jsonl"
    lines = [
        {"instruction": "" if number % 9 == 1 else f"question {number}", "output": f"answer {number}"}
        | {"kind": f"kind {number % 4}"}
        for number in range(150)
    ]
    rows.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    assert score(rows, "-o", one, "--indicators", "knn_2", *options) == 0
    _all_shards(score, rows, tmp_path / "parts", "--indicators", "knn_2", *options)
    in_pairs = options[0] == "--knn-metric"
    assert run("neighbours", tmp_path / "parts") == (0 if in_pairs else 1)
    if not in_pairs:
        assert "are searched by merge, not in pairs" in capsys.readouterr().err
    assert run("merge", tmp_path / "parts", "-o", merged) == 0
    _same(one, merged)


def test_too_few_rows_have_the_reasons_of_one_run(score: Run, run: Run, tmp_path: Path) -> None:
    rows, one, merged = EXAMPLES / "messages.jsonl", tmp_path / "one.jsonl", tmp_path / "merged.jsonl"
    options = ("--indicators", "knn_1,knn_90", "--block-bytes", "100")
    assert score(rows, "-o", one, *options) == 0
    _all_shards(score, rows, tmp_path / "parts", *options, shards=3)
    assert run("neighbours", tmp_path / "parts", "--pair", "1,1") == 0
    assert run("merge", tmp_path / "parts", "-o", merged) == 0
    _same(one, merged)
    assert b"the distance to neighbour 90 needs 91" in merged.read_bytes()


def test_neighbours_in_another_file_need_no_waiting(score: Run, run: Run, tmp_path: Path, rows: Path) -> None:
    one, parts, merged = tmp_path / "one.jsonl", tmp_path / "parts", tmp_path / "merged.jsonl"
    options = ("--indicators", "knn_1", "--knn-against", str(EXAMPLES / "alpaca.json"))
    assert score(rows, "-o", one, *options) == 3
    _all_shards(score, rows, parts, *options)
    assert (parts / "part-00001-of-00004.jsonl").exists()
    assert run("merge", parts, "-o", merged) == 3
    _same(one, merged)


def test_a_run_without_neighbours_has_no_pairs(
    score: Run, run: Run, tmp_path: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _all_shards(score, rows, tmp_path / "parts", "--indicators", "mtld")
    assert run("neighbours", tmp_path / "parts") == 1
    assert "no column of this run needs the neighbours among all rows" in capsys.readouterr().err


@pytest.mark.parametrize("end", ["", ".embeddings.f32"])
def test_a_part_that_is_cut_short_is_refused(
    score: Run, run: Run, tmp_path: Path, rows: Path, capsys: pytest.CaptureFixture[str], end: str
) -> None:
    parts = tmp_path / "parts"
    _all_shards(score, rows, parts, "--indicators", "knn_1")
    path = parts / f"part-00002-of-00004.windows{end}"
    path.write_bytes(path.read_bytes()[:-4])
    assert run("merge", parts, "-o", tmp_path / "merged.jsonl") == 1
    assert f"{path}: has {path.stat().st_size:,} bytes, its run file says" in capsys.readouterr().err
    assert run("neighbours", parts) == 1


@pytest.mark.parametrize("content", [b"", b"PK", b"of another pair"])
def test_a_damaged_pair_is_searched_again(
    score: Run, run: Run, tmp_path: Path, rows: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    one, parts, merged = tmp_path / "one.jsonl", tmp_path / "parts", tmp_path / "merged.jsonl"
    assert score(rows, "-o", one, "--indicators", "knn_1") == 3
    _all_shards(score, rows, parts, "--indicators", "knn_1")
    assert run("neighbours", parts) == 0
    damaged, other = (parts / f"neighbours-{pair}.npz" for pair in ("00001-00002", "00001-00001"))
    damaged.write_bytes(other.read_bytes() if b"another" in content else content)
    assert run("merge", parts, "-o", merged) == 3
    _same(one, merged)
    damaged.write_bytes(content)
    assert run("neighbours", parts, "--pair", "1,2") == 0
    assert "pair 1,2 (1 of 1)" in capsys.readouterr().err
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:200] + bytes(100) + whole[300:])  # inside of the distances
    assert run("merge", parts, "-o", merged, "--overwrite") == 3
    _same(one, merged)


def test_pairs_of_shards_that_were_scored_again_are_searched_again(
    score: Run, run: Run, tmp_path: Path, rows: Path
) -> None:
    one, parts, merged = tmp_path / "one.jsonl", tmp_path / "parts", tmp_path / "merged.jsonl"
    _all_shards(score, rows, parts, "--indicators", "knn_1")
    assert run("neighbours", parts) == 0
    rows.write_bytes(rows.read_bytes().replace(b" the ", b" cat "))
    for shard in range(1, SHARDS + 1):
        assert score(rows, "-o", parts, "--shard", f"{shard}/{SHARDS}", "--indicators", "knn_1", "--overwrite") == 3
    assert score(rows, "-o", one, "--indicators", "knn_1") == 3
    assert run("merge", parts, "-o", merged) == 3
    _same(one, merged)


def test_a_pair_of_no_shard_is_refused(
    score: Run, run: Run, tmp_path: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = tmp_path / "parts"
    _all_shards(score, rows, parts, "--indicators", "knn_1")
    assert run("neighbours", parts, "--pair", "1,5") == 1
    assert f"{parts}: has 4 shards, none of the number 5" in capsys.readouterr().err


def test_the_plan_has_the_rule_so_that_merge_needs_no_other_file(
    score: Run, run: Run, tmp_path: Path, rows: Path
) -> None:
    rule, one, parts, merged = (tmp_path / name for name in ("rule.json", "one.jsonl", "parts", "merged.jsonl"))
    rule.write_bytes(orjson.dumps({"id": "mine", "intercept": 1.5, "terms": {"knn_6": 0.25, "mtld": -0.01}}))
    assert score(rows, "-o", one, "--rule", rule) == 3
    _all_shards(score, rows, parts, "--rule", str(rule))
    rule.unlink()
    assert run("merge", parts, "-o", merged) == 3
    _same(one, merged)
    plan = Plan.load(parts)
    assert plan is not None
    assert plan.waits
    assert plan.rule is not None
    assert plan.rule["id"] == "mine"


def test_a_shard_that_waits_and_was_killed_after_a_commit_goes_on(
    run: Run, small_bundle: Path, tmp_path: Path, rows: Path
) -> None:
    one, parts, merged = (str(tmp_path / name) for name in ("one.jsonl", "parts", "merged.jsonl"))
    settings = ("score", str(rows), "--indicators", "knn_1", "--bundle", str(small_bundle), *BLOCKS)
    assert Command((*settings, "-o", one)).run() == 3
    for shard in ("2/2", "1/2"):
        command = (*settings, "-o", parts, "--shard", shard)
        assert Command(command, pause_after=2, counts=(SPOOLED,)).run(60) == CUT
        assert (tmp_path / "parts" / f"part-0000{shard[0]}-of-00002.windows.partial" / "state.json").exists()
        assert Command(command).run() in {0, 3}
    assert run("merge", parts, "-o", merged) == 3
    _same(Path(one), Path(merged))
