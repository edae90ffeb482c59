"""Runs from a store to a store give the bytes of runs on this machine. The store is a folder that pretends."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cut_runs import write_rows
from pretended_store import PretendedStore, store

from instructmining.writing.cache import cache_folder
from instructmining_scale import plan

__all__ = ["store"]  # a fixture

Run = Callable[..., int]
SETTINGS = ("--indicators", "mtld,perplexity", "--max-batch-tokens", "512", "--device", "cpu", "--block-bytes", "3000")


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A folder of JSON lines and Parquet, with bad rows."""
    folder = tmp_path / "in"
    folder.mkdir()
    write_rows(folder / "a.jsonl", 60)
    write_rows(folder / "b.jsonl", 40, seed=1)
    rows = [{"instruction": f"Say {number}", "output": "word " * (number % 7)} for number in range(30)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "c.parquet", row_group_size=7)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this machine; plans settle at once."""
    monkeypatch.setattr(plan, "_SETTLES_S", 0.0)
    monkeypatch.setenv("INSTRUCTMINING_CACHE", str(tmp_path / "cache"))
    return cache_folder()


def brought(store: PretendedStore, folder: Path, name: str) -> None:
    """Copy a folder to the store."""
    for path in folder.rglob("*"):
        if path.is_file():
            store.put(f"bucket/{name}/{path.relative_to(folder)}", path.read_bytes())


def files_of(folder: Path, name: str) -> Mapping[str, bytes]:
    """Return OUT and its rejects, with the names that files have on this machine."""
    found = {end: (folder / f"{name}{end}").read_bytes() for end in ("", ".rejects.jsonl")}
    return {end: content.replace(b"s3://bucket/in", b"in") for end, content in found.items()}


@pytest.fixture
def one(
    store: PretendedStore, run: Run, inputs: Path, small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Mapping[str, bytes]:
    """The files of a run on this machine; the input and the bundle are in the store too."""
    brought(store, inputs, "in")
    brought(store, small_bundle, "bundle")
    monkeypatch.chdir(tmp_path)
    assert run("score", "in", "-o", "one.jsonl", "--bundle", small_bundle, *SETTINGS) == 3
    return files_of(tmp_path, "one.jsonl")


def score(run: Run, out: str, *more: str) -> int:
    """Score from the store."""
    return run("score", "s3://bucket/in", "-o", out, "--bundle", "s3://bucket/bundle", *SETTINGS, *more)


def test_a_run_from_a_store_to_a_store_gives_the_same_bytes(
    store: PretendedStore, run: Run, one: Mapping[str, bytes], cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = "s3://bucket/out/scored.jsonl"
    assert score(run, out) == 3
    assert files_of(store.folder / "bucket/out", "scored.jsonl") == one
    run_file = json.loads((store.folder / "bucket/out/scored.jsonl.run.json").read_bytes())
    assert {source["path"] for source in run_file["identity"]["inputs"]} == {
        f"s3://bucket/in/{name}" for name in ("a.jsonl", "b.jsonl", "c.parquet")
    }
    assert not list((cache / "outputs").iterdir())
    capsys.readouterr()
    assert score(run, out) == 1
    assert "exists; give --overwrite" in capsys.readouterr().err
    assert score(run, out, "--resume") == 0
    assert "already finished" in capsys.readouterr().err
    assert score(run, out, "--overwrite") == 3
    assert files_of(store.folder / "bucket/out", "scored.jsonl") == one


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst", ".parquet"])
@pytest.mark.usefixtures("one")
def test_a_compressed_out_is_compressed_once(
    store: PretendedStore, run: Run, small_bundle: Path, tmp_path: Path, suffix: str
) -> None:
    assert run("score", "in", "-o", f"here{suffix}", "--bundle", small_bundle, *SETTINGS) == 3
    assert score(run, f"s3://bucket/there{suffix}") == 3
    assert (store.folder / f"bucket/there{suffix}").read_bytes() == (tmp_path / f"here{suffix}").read_bytes()


def test_batch_sizes_may_be_left_to_the_run(store: PretendedStore, run: Run, inputs: Path, small_bundle: Path) -> None:
    brought(store, inputs, "in")
    given = ("s3://bucket/in", "-o", "s3://bucket/out.jsonl", "--indicators", "perplexity", "--bundle", small_bundle)
    assert run("score", *given, "--device", "cpu") == 3
    assert run("score", *given, "--device", "cpu", "--dry-run") == 0


def test_a_file_address_is_a_path(run: Run, one: Mapping[str, bytes], small_bundle: Path, tmp_path: Path) -> None:
    given = (f"file://{tmp_path}/in", "-o", f"file://{tmp_path}/out.jsonl", "--bundle", f"file://{small_bundle}")
    assert run("score", *given, *SETTINGS) == 3
    assert (tmp_path / "out.jsonl").read_bytes() == one[""]


@pytest.mark.parametrize("columns", ["mtld,perplexity", "knn_2,mtld"])
def test_shards_in_a_store_merge_to_the_same_bytes(
    store: PretendedStore,
    run: Run,
    one: Mapping[str, bytes],
    small_bundle: Path,
    tmp_path: Path,
    columns: str,
) -> None:
    more = ("--indicators", columns)
    if columns != SETTINGS[1]:
        assert run("score", "in", "-o", "knn.jsonl", "--bundle", small_bundle, *SETTINGS, *more) == 3
        one = files_of(tmp_path, "knn.jsonl")
    for shard in (2, 1, 3):
        assert score(run, "s3://bucket/parts", *more, "--shard", f"{shard}/3") == 3
    assert score(run, "s3://bucket/parts", *more, "--shard", "2/3") == 0
    assert run("merge", "s3://bucket/parts", "-o", "s3://bucket/merged.jsonl") == 3
    assert files_of(store.folder / "bucket", "merged.jsonl") == one
    assert not list((cache_folder() / "outputs").iterdir())


def test_a_part_that_the_store_lost_a_piece_of_is_found_and_scored_again(
    store: PretendedStore, run: Run, one: Mapping[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    for shard in (1, 2):
        assert score(run, "s3://bucket/parts", "--shard", f"{shard}/2") == 3
    part = store.folder / "bucket/parts/part-00002-of-00002.jsonl"
    whole = part.read_bytes()
    part.write_bytes(whole[:-1] + b" ")
    assert run("merge", "s3://bucket/parts", "-o", "s3://bucket/merged.jsonl") == 1
    assert "part-00002-of-00002.jsonl: is damaged; score the shard again" in capsys.readouterr().err
    part.write_bytes(whole[:-1])
    assert score(run, "s3://bucket/parts", "--shard", "2/2") == 3
    assert run("merge", "s3://bucket/parts", "-o", "s3://bucket/merged.jsonl") == 3
    assert files_of(store.folder / "bucket", "merged.jsonl") == one


def test_an_upload_that_fails_keeps_the_finished_run_and_resume_brings_it(
    store: PretendedStore, run: Run, one: Mapping[str, bytes], cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(call: str, path: str) -> None:
        if call == "write" and path.endswith(".run.json") and (store.folder / "bucket/out/scored.jsonl").exists():
            raise OSError("AWS Error ACCESS_DENIED during PutObject operation")

    store.fails = fails
    out = "s3://bucket/out/scored.jsonl"
    assert score(run, out) == 1
    said = capsys.readouterr().err
    assert "denies access" in said
    assert "--resume brings them there" in said
    assert "scored 116 rows" not in said
    assert score(run, out) == 1
    assert "--resume brings them there, --overwrite starts over" in capsys.readouterr().err
    assert not (store.folder / "bucket/out/scored.jsonl.run.json").read_bytes()
    store.fails = lambda _call, _path: None
    assert score(run, out, "--resume") == 0
    assert files_of(store.folder / "bucket/out", "scored.jsonl") == one
    assert not list((cache / "outputs").iterdir())


def test_a_store_that_takes_no_file_is_found_before_any_work(
    store: PretendedStore, run: Run, one: Mapping[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(call: str, _path: str) -> None:
        if call == "write":
            raise OSError("AWS Error NO_SUCH_BUCKET during PutObject operation")

    assert one
    store.fails = fails
    capsys.readouterr()
    assert score(run, "s3://bucket/out/scored.jsonl") == 1
    assert capsys.readouterr().err == "error: s3://bucket/out/scored.jsonl: no such bucket\n"


def test_scored_files_in_a_store_are_selected_described_and_rescored(
    store: PretendedStore, run: Run, one: Mapping[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.put("bucket/one.jsonl", one[""])
    wanted = ("--by", "perplexity", "--top", "10")
    assert run("select", "s3://bucket/one.jsonl", "-o", "s3://bucket/best.jsonl", *wanted) == 0
    assert run("select", "one.jsonl", "-o", "best.jsonl", *wanted) == 0
    assert (store.folder / "bucket/best.jsonl").read_bytes() == (tmp_path / "best.jsonl").read_bytes()
    rule = {"id": "mine", "intercept": 0.0, "terms": {"perplexity": 1.0}}
    store.put("bucket/rule.json", json.dumps(rule).encode())
    assert (
        run("rescore", "s3://bucket/one.jsonl", "-o", "s3://bucket/again.parquet", "--rule", "s3://bucket/rule.json")
        == 0
    )
    assert pq.read_table(store.folder / "bucket/again.parquet").num_rows == len(one[""].splitlines())
    capsys.readouterr()
    assert run("describe", "s3://bucket/one.jsonl") == 0
    assert "perplexity" in capsys.readouterr().out
    assert run("select", "s3://bucket/one.jsonl", "-o", "s3://bucket/one.jsonl", *wanted, "--overwrite") == 1
    assert "would replace what this command reads" in capsys.readouterr().err


@pytest.mark.usefixtures("one")
@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://KEY:TOPSECRET@bucket/in", "holds credentials"),
        ("s3://bucket/in/a.jsonl?X-Amz-Signature=TOPSECRET", "has a query"),
        ("https://bucket.example/a.jsonl?sig=TOPSECRET", "is no address of a store"),
        ("s3://bucket/nothing", "No such file"),
        ("s3://other/in", "no such bucket"),
        ("s3://bucket/in/*.csv", "no file of rows matches"),
    ],
)
def test_a_wrong_address_is_one_line_without_secrets(
    run: Run, address: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run("score", address, "-o", "x.jsonl", "--bundle", "s3://bucket/bundle", *SETTINGS) == 1
    err = capsys.readouterr().err
    assert said in err
    assert "SECRET" not in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_an_input_that_is_replaced_during_the_run_ends_it(
    store: PretendedStore, run: Run, one: Mapping[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    def replaces(call: str, path: str) -> None:
        file = store.folder / "bucket/in/a.jsonl"
        if call == "open" and path == "bucket/in/c.parquet":
            file.write_bytes(file.read_bytes().replace(b"the", b"THE"))

    assert one
    store.fails = replaces
    assert score(run, "s3://bucket/out/scored.jsonl") == 1
    assert "s3://bucket/in/a.jsonl" in capsys.readouterr().err
    assert not (store.folder / "bucket/out/scored.jsonl").exists()


def test_a_store_that_breaks_off_ends_the_run_and_rejects_nothing(
    store: PretendedStore, run: Run, one: Mapping[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    reads = 0

    def fails(call: str, path: str) -> None:
        nonlocal reads
        if call == "read" and path.endswith("c.parquet"):
            reads += 1
            if reads > 12:
                raise OSError("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 18, cut")

    store.fails = fails
    out = "s3://bucket/out/scored.jsonl"
    assert score(run, out) == 1
    assert "breaks off" in capsys.readouterr().err
    assert not (store.folder / "bucket/out/scored.jsonl").exists()
    store.fails = lambda _call, _path: None
    assert score(run, out, "--resume") == 3
    assert files_of(store.folder / "bucket/out", "scored.jsonl") == one
