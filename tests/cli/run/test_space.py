from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from instructmining.errors import OutputError
from instructmining.writing.run_writer import RunWriter
from instructmining_cli.run.space import check_open_files, room_left, room_needed

EXAMPLE = {"instruction": "Name a colour.", "input": "", "output": "Green, blue or red: all of them are colours."}


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
@pytest.mark.parametrize("indicators", ["perplexity,reward,mtld,ifd", "perplexity,knn_6"])
def test_a_run_takes_no_more_room_than_it_says_and_not_much_less(
    run: Callable[..., int],
    small_bundle: Path,
    write_rows: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    indicators: str,
) -> None:
    rows = write_rows(*({**EXAMPLE, "output": f"{number} {EXAMPLE['output']}"} for number in range(400)))
    out = rows.with_name(f"out{suffix}")
    most = 0
    put = RunWriter._put_in_place

    def measured(writer: RunWriter) -> None:
        nonlocal most
        most = sum(path.stat().st_size for path in Path(f"{out}.partial").iterdir())
        put(writer)

    monkeypatch.setattr(RunWriter, "_put_in_place", measured)
    assert run("score", rows, "-o", out, "--bundle", small_bundle, "--indicators", indicators) == 0
    said = room_needed([str(rows)], str(out), embedding_size=32 if "knn" in indicators else None)
    assert said is not None
    assert most <= said <= 8 * most


def test_of_a_compressed_input_more_is_expected_than_its_size(tmp_path: Path, write_rows: Callable[..., Path]) -> None:
    rows = write_rows(*[EXAMPLE] * 100)
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(rows.read_bytes(), mtime=0))
    needed = room_needed([str(packed)], "out.jsonl", embedding_size=None)
    assert needed is not None
    assert needed > 4 * packed.stat().st_size


def test_parquet_says_how_many_rows_are_to_come(tmp_path: Path) -> None:
    import pyarrow as pa  # noqa: PLC0415 - here alone
    import pyarrow.parquet as pq  # noqa: PLC0415 - here alone

    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"instruction": ["a"] * 50_000, "output": ["b" * 100] * 50_000}), path)
    assert path.stat().st_size < 100_000
    size = 50_000 * len(b'{"instruction":"a","output":"%s"}\n' % (b"b" * 100))
    needed = room_needed([str(path)], "out.jsonl", embedding_size=None)
    assert needed is not None
    assert size < needed < 5 * size
    whole = room_needed([str(path)], "out.parquet", embedding_size=None)
    assert whole is not None
    assert needed < whole < 2 * needed


@pytest.mark.parametrize("content", [b"", b"\n\n", b"not JSON\n"])
def test_where_nothing_is_known_of_the_rows_nothing_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rows.jsonl").write_bytes(content)
    assert room_needed([str(tmp_path / "rows.jsonl")], "out.jsonl", embedding_size=None) is None


def test_of_standard_input_nothing_is_known() -> None:
    assert room_needed(["-"], "out.jsonl", embedding_size=384) is None


def test_the_room_left_is_that_of_the_nearest_folder_that_is_there(tmp_path: Path) -> None:
    assert room_left(str(tmp_path / "not" / "yet" / "out.jsonl")) > 0


def test_a_run_with_too_little_room_says_so_before_it_begins(
    run: Callable[..., int],
    small_bundle: Path,
    tmp_path: Path,
    write_rows: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("instructmining_cli.run.display.room_left", lambda _: 1 << 20)
    monkeypatch.setattr("instructmining_cli.run.display.room_needed", lambda *_, **__: 5 << 30)
    arguments = ("score", write_rows(EXAMPLE), "-o", tmp_path / "out.jsonl", "--bundle", small_bundle)
    assert run(*arguments, "--indicators", "mtld") == 0
    said = capsys.readouterr().err
    assert "the run needs about 5.0 GiB" in said
    assert "; 1 MiB are free" in said
    assert "--resume continues" in said


@pytest.mark.skipif(os.name != "posix", reason="limits of a process")
def test_too_few_open_files_are_said_with_how_to_mend_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource  # noqa: PLC0415 - not on every system

    check_open_files()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20, 4096))
    with pytest.raises(OutputError, match=r"may open 20 files and needs up to 64; raise the limit: ulimit -n"):
        check_open_files()
