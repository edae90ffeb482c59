"""Runs in shards, and what merge makes of them: the files of one run, to the byte."""

from __future__ import annotations

import gzip
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from cut_runs import write_rows as write_many
from paths import ROOT

from instructmining.reading.compression import opened
from instructmining_scale.plan import Plan

Run = Callable[..., int]
COLUMNS = ("--indicators", "perplexity,reward,mtld,output_length", "--device", "cpu", "--block-bytes", "3000")
SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")


@pytest.fixture
def score(run: Run, small_bundle: Path) -> Callable[..., int]:
    def call(*arguments: str | Path) -> int:
        return run("score", *arguments, "--bundle", small_bundle, *COLUMNS)

    return call


def _rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    write_many(path, 150)
    return path


def _shards(count: int, seed: int = 0) -> list[str]:
    shards = [f"{number}/{count}" for number in range(1, count + 1)]
    random.Random(seed).shuffle(shards)
    return shards


def _plain(path: Path) -> bytes:
    with opened(str(path)) as source:
        return source.stream.read()


@pytest.mark.parametrize("count", [1, 3, 7, 40])
def test_parts_merge_to_the_files_of_one_run(score: Run, run: Run, tmp_path: Path, count: int) -> None:
    rows, one, parts, merged = _rows(tmp_path), tmp_path / "one.jsonl", tmp_path / "parts", tmp_path / "merged.jsonl"
    assert score(rows, "-o", one) == 3
    for shard in _shards(count):
        assert score(rows, "-o", parts, "--shard", shard) in {0, 3}
    assert run("merge", parts, "-o", merged) == 3
    assert merged.read_bytes() == one.read_bytes()
    assert Path(f"{merged}.rejects.jsonl").read_bytes() == Path(f"{one}.rejects.jsonl").read_bytes()
    counted, wanted = (orjson.loads(Path(f"{path}.run.json").read_bytes()) for path in (merged, one))
    for name in ("rows_in", "rows_out", "rows_rejected", "blank_lines", "null", "truncated"):
        assert counted["counts"][name] == wanted["counts"][name]
    assert counted["tokens"] == wanted["tokens"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_parts_of_each_kind_merge_to_the_file_of_one_run(score: Run, run: Run, tmp_path: Path, suffix: str) -> None:
    rows, parts = _rows(tmp_path), tmp_path / "parts"
    for shard in _shards(3):
        assert score(rows, "-o", parts, "--shard", shard, "--part-format", suffix) == 3
    for out in (*SUFFIXES, ".parquet", ".csv.gz"):
        one, merged = tmp_path / f"one{out}", tmp_path / f"merged{out}"
        if not one.exists():
            assert score(rows, "-o", one) == 3
        assert run("merge", parts, "-o", merged) == 3
        if out != ".jsonl.gz" or out == suffix:
            assert merged.read_bytes() == one.read_bytes()
        else:
            assert _plain(merged) == _plain(one)


def test_files_of_all_kinds_merge_to_the_file_of_one_run(score: Run, run: Run, tmp_path: Path) -> None:
    folder, parts = tmp_path / "rows", tmp_path / "parts"
    folder.mkdir()
    for number in range(3):
        write_many(folder / f"{number}.jsonl", 60, seed=number)
    good = [{"instruction": f"question {number}", "output": "a word " * (number % 7 + 1)} for number in range(300)]
    (folder / "array.json").write_bytes(orjson.dumps(good))
    (folder / "table.csv").write_text(
        "instruction,output\n" + "".join(f'"a\n{number}","b c"\n' for number in range(300)), encoding="utf-8"
    )
    (folder / "empty.jsonl").write_bytes(b"")
    assert score(folder, "-o", tmp_path / "one.jsonl") == 3
    for shard in _shards(6):
        assert score(folder, "-o", parts, "--shard", shard) in {0, 3}
    assert run("merge", parts, "-o", tmp_path / "merged.jsonl") == 3
    for end in ("", ".rejects.jsonl"):
        assert Path(f"{tmp_path}/merged.jsonl{end}").read_bytes() == Path(f"{tmp_path}/one.jsonl{end}").read_bytes()


def test_a_shard_that_is_scored_twice_is_left_as_it_is(
    score: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, parts = _rows(tmp_path), tmp_path / "parts"
    assert score(rows, "-o", parts, "--shard", "2/3") == 3
    part = parts / "part-00002-of-00003.jsonl"
    before = (part.read_bytes(), part.stat().st_mtime_ns)
    assert score(rows, "-o", parts, "--shard", "2/3") == 0
    assert (part.read_bytes(), part.stat().st_mtime_ns) == before
    assert "already finished" in capsys.readouterr().err
    assert score(rows, "-o", parts, "--shard", "2/3", "--overwrite") == 3
    assert part.read_bytes() == before[0]


def test_missing_parts_are_named(score: Run, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, parts = _rows(tmp_path), tmp_path / "parts"
    assert score(rows, "-o", parts, "--shard", "2/3") == 3
    assert run("merge", parts, "-o", tmp_path / "merged.jsonl") == 1
    assert f"{parts}: 2 of 3 parts are missing, of the shards 1, 3; score them" in capsys.readouterr().err
    assert not (tmp_path / "merged.jsonl").exists()


def _cut_rows(part: Path) -> None:
    part.write_bytes(part.read_bytes().rpartition(b"\n")[0].rpartition(b"\n")[0] + b"\n")


def _cut_rejects(part: Path) -> None:
    Path(f"{part}.rejects.jsonl").write_bytes(b"")


def _lose_rejects(part: Path) -> None:
    Path(f"{part}.rejects.jsonl").unlink()


def _change_a_byte(part: Path) -> None:
    content = part.read_bytes()
    part.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])


def _damage_run(part: Path) -> None:
    Path(f"{part}.run.json").write_bytes(b"{")


def _exchange(part: Path) -> None:
    other = part.with_name("part-00001-of-00003.jsonl")
    for end in ("", ".rejects.jsonl", ".run.json"):
        Path(f"{part}{end}").write_bytes(Path(f"{other}{end}").read_bytes())


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_cut_rows, r"part-00002-of-00003.jsonl: has [\d,]+ bytes, its run file says [\d,]+; score the shard again"),
        (_cut_rejects, r"rejects.jsonl: has 0 bytes, its run file says \d+; score the shard again"),
        (_change_a_byte, r"part-00002-of-00003.jsonl: is damaged; score the shard again"),
        (_lose_rejects, r"rejects.jsonl: is missing; score the shard again"),
        (_damage_run, r"run.json: is no run file of a shard; score the shard again"),
        (_exchange, r"part-00002-of-00003.jsonl: was written by another run than plan.json plans"),
    ],
)
def test_damaged_parts_are_refused(
    score: Run,
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    said: str,
) -> None:
    rows, parts = _rows(tmp_path), tmp_path / "parts"
    for shard in _shards(3):
        assert score(rows, "-o", parts, "--shard", shard) == 3
    damage(parts / "part-00002-of-00003.jsonl")
    assert run("merge", parts, "-o", tmp_path / "merged.jsonl") == 1
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "merged.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--shard", "1/4"), "its plan has 3 shards, not 4; name another folder, or empty this one"),
        (("--shard", "1/3", "--part-format", ".jsonl.gz"), "are .jsonl files; give --part-format .jsonl"),
        (("--shard", "1/3", "--prefix", "x_"), "its plan is of another run: prefix was , is now x_"),
        (("--shard", "1/3", "--max-batch-tokens", "64"), "its plan is of another run: batching was"),
    ],
)
def test_a_shard_with_other_settings_than_the_plan_is_refused(
    score: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    rows, parts = _rows(tmp_path), tmp_path / "parts"
    assert score(rows, "-o", parts, "--shard", "2/3") == 3
    assert score(rows, "-o", parts, *arguments) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (("--shard", "2/3"), "its plan has 2 shards, not 3"),
        (("--shard", "2/2", "--part-format", ".jsonl.gz"), "the parts of its plan are .jsonl files"),
    ],
)
def test_a_shard_that_plans_at_the_same_time_as_another_is_refused_where_they_differ(
    score: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    others: tuple[str, ...],
    said: str,
) -> None:
    rows, parts = _rows(tmp_path), tmp_path / "parts"
    assert score(rows, "-o", parts, "--shard", "1/2") == 3
    loads = iter([None])  # the second process looks before the first one has written its plan
    load = Plan.load
    monkeypatch.setattr(Plan, "load", lambda folder: next(loads, ...) and load(folder))
    assert score(rows, "-o", parts, *others) == 1
    assert said in capsys.readouterr().err


def test_other_files_than_those_of_a_plan_at_the_same_time_are_refused(
    score: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, other, parts = _rows(tmp_path), tmp_path / "other.jsonl", tmp_path / "parts"
    write_many(other, 20)
    assert score(rows, other, "-o", parts, "--shard", "1/2") == 3
    for inputs, said in (((rows,), f"{other}: is in the plan of {parts}, not in the input"),):
        loads = iter([None])
        load = Plan.load
        monkeypatch.setattr(Plan, "load", lambda folder, loads=loads, load=load: next(loads, ...) and load(folder))
        assert score(*inputs, "-o", parts, "--shard", "2/2") == 1
        assert said in capsys.readouterr().err


def test_a_finished_part_that_is_damaged_is_scored_again(
    score: Run, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, parts = _rows(tmp_path), tmp_path / "parts"
    for shard in _shards(3):
        assert score(rows, "-o", parts, "--shard", shard) == 3
    part = parts / "part-00002-of-00003.jsonl"
    whole = part.read_bytes()
    _cut_rows(part)
    assert score(rows, "-o", parts, "--shard", "2/3") == 3
    assert f"caution: {part} is damaged; it is scored again" in capsys.readouterr().err
    assert part.read_bytes() == whole
    assert run("merge", parts, "-o", tmp_path / "merged.jsonl") == 3


def test_merge_does_not_replace_an_input(
    score: Run, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, parts = _rows(tmp_path), tmp_path / "parts"
    for shard in _shards(2):
        assert score(rows, "-o", parts, "--shard", shard) == 3
    before = rows.read_bytes()
    assert run("merge", parts, "-o", rows, "--overwrite") == 1
    assert "would replace" in capsys.readouterr().err
    assert rows.read_bytes() == before


def test_a_compressed_file_that_changed_between_shards_is_found(
    score: Run, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, parts = tmp_path / "rows.jsonl.gz", tmp_path / "parts"
    content = gzip.compress(_rows(tmp_path).read_bytes())
    rows.write_bytes(content)
    assert score(rows, "-o", parts, "--shard", "1/2") == 3
    rows.write_bytes(content[:8] + bytes([content[8] ^ 1]) + content[9:])  # a byte that no reader looks at
    assert score(rows, "-o", parts, "--shard", "2/2") == 3
    assert run("merge", parts, "-o", tmp_path / "merged.jsonl") == 1
    assert f"{rows}: was changed between part-00001-of-00002.jsonl and part-00002" in capsys.readouterr().err


def test_the_merged_run_file_has_all_inputs_and_what_was_not_read(score: Run, run: Run, tmp_path: Path) -> None:
    rows, parts = tmp_path / "rows.jsonl", tmp_path / "parts"
    row = {"instruction": "a question", "output": "an answer", "notes": "nobody reads this"}
    rows.write_bytes((orjson.dumps(row) + b"\n") * 150)
    for shard in _shards(3):
        assert score(rows, "-o", parts, "--shard", shard) == 0
    assert run("merge", parts, "-o", tmp_path / "merged.jsonl") == 0
    said = orjson.loads((tmp_path / "merged.jsonl.run.json").read_bytes())
    assert said["counts"]["not_read"] == {str(rows): {"notes": 150}}
    assert [(part["begin"], part["end"]) for part in said["identity"]["inputs"]] == [
        (0, 3000),
        (3000, 9000),
        (9000, None),
    ]
    assert "shard" not in said["settings"]


def test_an_empty_shard_says_why(score: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.jsonl"
    write_many(rows, 20)
    assert score(rows, "-o", tmp_path / "parts", "--shard", "40/99") == 0
    assert "shard 40 of 99 has no rows: shards begin at multiples of" in capsys.readouterr().err


def test_another_input_than_the_plans_is_refused(
    score: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, parts = _rows(tmp_path), tmp_path / "parts"
    assert score(rows, "-o", parts, "--shard", "2/3") == 3
    with rows.open("ab") as file:
        file.write(b"\n")
    assert score(rows, "-o", parts, "--shard", "1/3") == 1
    size = rows.stat().st_size
    assert f"{rows}: {size:,} bytes now, {size - 1:,} bytes in the plan of {parts}" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("--shard", "0/3"), ("--shard", "4/3"), ("--shard", "1"), ("--shard", "a/b")])
def test_a_shard_is_a_number_of_a_number(score: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert score(_rows(tmp_path), "-o", tmp_path / "parts", *arguments) == 2


def test_options_that_make_no_sense_for_a_shard_are_wrong_usage(score: Run, tmp_path: Path) -> None:
    rows = _rows(tmp_path)
    assert score(rows, "-o", tmp_path / "parts.jsonl", "--shard", "1/2") == 2
    assert score(rows, "-o", tmp_path / "parts", "--shard", "1/2", "--limit", "5") == 2
    assert score(rows, "-o", tmp_path / "parts", "--shard", "1/2", "--json") == 2


def test_a_folder_without_a_plan_is_refused(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("merge", tmp_path, "-o", tmp_path / "merged.jsonl") == 1
    assert f"{tmp_path}: has no plan.json; wanted the folder that score --shard wrote to" in capsys.readouterr().err


def test_parts_in_parquet_are_not_merged(
    score: Run, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, parts = _rows(tmp_path), tmp_path / "parts"
    for shard in _shards(2):
        assert score(rows, "-o", parts, "--shard", shard, "--part-format", ".parquet") == 3
    assert run("merge", parts, "-o", tmp_path / "merged.parquet") == 1
    assert "its parts are Parquet files, which are not merged; read them as they are" in capsys.readouterr().err


def test_a_folder_of_parts_is_no_input(score: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, parts = _rows(tmp_path), tmp_path / "parts"
    assert score(rows, "-o", parts, "--shard", "1/2") == 3
    assert score(parts, "-o", tmp_path / "again.jsonl") == 1
    assert f"{parts}: holds the parts of a run in shards; join them first" in capsys.readouterr().err


def test_the_script_for_one_shard_gives_0_where_rows_were_rejected(
    small_bundle: Path, run: Run, score: Run, tmp_path: Path
) -> None:
    rows, parts, tools = _rows(tmp_path), tmp_path / "parts", tmp_path / "bin"
    tools.mkdir()
    command = tools / "instructmining"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m instructmining "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    for shard in ("2", "1"):
        arguments = [rows, parts, "2", shard, "--bundle", small_bundle, *COLUMNS]
        script = ROOT / "deploy" / "parallel.sh"
        done = subprocess.run([script, *arguments], env={**os.environ, "PATH": path}, check=False, capture_output=True)
        assert done.returncode == 0, done.stderr
    assert score(rows, "-o", tmp_path / "one.jsonl") == 3
    assert run("merge", parts, "-o", tmp_path / "merged.jsonl") == 3
    assert (tmp_path / "merged.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
