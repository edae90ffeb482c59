from __future__ import annotations

import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import altered_bundle
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cut_runs import CUT, Command, cut_until, outputs, small_batching, write_rows
from numpy.typing import NDArray

from instructmining.errors import DeviceError
from instructmining.inference.batching import Batch, Batching
from instructmining.inference.sessions import GraphSession
from instructmining.scorer import scorer
from instructmining.writing.run_writer import RunWriter
from instructmining_scale.runs import resuming

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

INDICATORS = {"rows": "perplexity,reward,mtld,ifd", "corpus": "perplexity,knn_6,output_length"}
ROWS = 300


def arguments(bundle: Path, rows: Path, indicators: str) -> list[str]:
    return ["score", str(rows), "--bundle", str(bundle), "--indicators", indicators, "--device", "cpu"]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    write_rows(path, ROWS)
    return path


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Batching, "usual", small_batching)
    monkeypatch.setattr(scorer.Batching, "usual", small_batching)


# Killed


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("rows", ".jsonl"), ("rows", ".jsonl.gz"), ("rows", ".csv.gz"), ("corpus", ".jsonl.zst"), ("corpus", ".parquet")],
)
def test_a_run_killed_at_any_moment_goes_on_to_the_same_bytes(
    small_bundle: Path, rows: Path, tmp_path: Path, kind: str, suffix: str
) -> None:
    found = cut_until(5, arguments(small_bundle, rows, INDICATORS[kind]), tmp_path, suffix, random.Random(1))
    assert (found.kills >= 5, found.commits_met > 0) == (True, True), found


@pytest.mark.parametrize(
    ("kind", "bad_rows"), [("rows", "long stretches"), ("corpus", "long stretches"), ("rows", "all")]
)
def test_a_run_of_windows_without_a_text_goes_on_to_the_same_bytes(
    small_bundle: Path, tmp_path: Path, kind: str, bad_rows: str
) -> None:
    write_rows(tmp_path / "rows.jsonl", 5000 if bad_rows == "all" else 600, bad_rows=bad_rows)
    base = arguments(small_bundle, tmp_path / "rows.jsonl", INDICATORS[kind])
    found = cut_until(5, base, tmp_path, ".jsonl", random.Random(1))
    assert (found.kills >= 5, found.commits_met > 0) == (True, True), found
    # Two windows with texts and three without follow each other: kill behind the last of the first and of the second.
    out = tmp_path / "paused.jsonl"
    for commits in (2, 5) if (kind, bad_rows) == ("rows", "long stretches") else ():
        assert Command((*base, "-o", str(out), "--overwrite"), pause_after=commits).run(kill_after=60) == CUT
        assert Command((*base, "-o", str(out), "--resume")).run() == 3
        assert outputs(out) == outputs(tmp_path / "whole.jsonl")


def test_a_run_from_parquet_to_parquet_goes_on_to_the_same_bytes(small_bundle: Path, tmp_path: Path) -> None:
    """Damaged rows cannot be in it, so the bad ones are those without a response."""
    path = tmp_path / "rows.parquet"
    texts = [f"{number} and some more words" * (number % 7 + 1) for number in range(ROWS)]
    table = pa.table({"instruction": texts, "output": ["" if n % 11 == 5 else text for n, text in enumerate(texts)]})
    pq.write_table(table, path, row_group_size=70)
    found = cut_until(4, arguments(small_bundle, path, INDICATORS["rows"]), tmp_path, ".parquet", random.Random(1))
    assert (found.kills >= 4, found.commits_met > 0) == (True, True), found
    base = arguments(small_bundle, path, INDICATORS["rows"])
    out = tmp_path / "paused.parquet"
    assert Command((*base, "-o", str(out)), pause_after=6).run(kill_after=60) == CUT
    assert Command((*base, "-o", str(out), "--resume")).run() == 3
    assert outputs(out) == outputs(tmp_path / "whole.parquet")
    assert json.loads(Path(f"{out}.run.json").read_bytes())["counts"]["rows_from_before"] == 96


@pytest.mark.faults
@pytest.mark.parametrize(
    ("kind", "suffix", "bad_rows"),
    [
        *itertools.product(INDICATORS, [".jsonl", ".jsonl.gz", ".jsonl.zst"], ["some"]),
        *itertools.product(INDICATORS, [".jsonl"], ["long stretches", "all"]),
    ],
)
def test_hundreds_of_kills_change_nothing(
    small_bundle: Path, tmp_path: Path, kind: str, suffix: str, bad_rows: str
) -> None:
    kills = int(os.environ.get("FAULT_KILLS", "240"))
    write_rows(tmp_path / "rows.jsonl", 15_000 if bad_rows == "all" else 1500, bad_rows=bad_rows)
    rng = random.Random(int(os.environ.get("FAULT_SEED", "0")))
    found = cut_until(
        -(-kills // 6),
        arguments(small_bundle, tmp_path / "rows.jsonl", INDICATORS[kind]),
        tmp_path,
        suffix,
        rng,
    )
    print(f"{kind} {suffix} {bad_rows} bad: {found}")  # noqa: T201 - the figures are the result
    assert found.from_before > 0


# Ended by the system


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    small_bundle: Path, rows: Path, tmp_path: Path, number: int, code: int
) -> None:
    base = arguments(small_bundle, rows, INDICATORS["rows"])
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    assert Command((*base, "-o", str(whole))).run() == 3
    assert Command((*base, "-o", str(out)), pause_after=3).run(kill_after=60, signal_number=number) == code
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("out")) == ["out.jsonl.partial"]
    assert Command((*base, "-o", str(out), "--resume")).run() == 3
    assert outputs(out) == outputs(whole)


@pytest.mark.skipif(os.name != "posix", reason="limits of a process")
@pytest.mark.parametrize(("kind", "suffix"), [("rows", ".jsonl"), ("corpus", ".jsonl.zst")])
def test_a_run_whose_disk_takes_no_more_says_so_and_goes_on_when_it_does(
    small_bundle: Path, rows: Path, tmp_path: Path, kind: str, suffix: str
) -> None:
    base = arguments(small_bundle, rows, INDICATORS[kind])
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
    assert Command((*base, "-o", str(whole))).run() == 3
    for most in (9_000, 20_000, 30_000):
        assert Command((*base, "-o", str(out), "--resume"), file_size=most, said=tmp_path / "said").run() == 1
        said = (tmp_path / "said").read_text()
        assert "File too large" in said
        assert "Traceback" not in said
    assert "--resume continues" in said
    assert not out.exists()
    assert Command((*base, "-o", str(out), "--resume")).run() == 3
    assert outputs(out) == outputs(whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system of a size, or one more of it; skips where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size: str) -> Path:
        flags = "remount," if folder.is_mount() else ""
        command = ["mount", "-t", "tmpfs", "-o", f"{flags}size={size}", "none", str(folder)]
        if not shutil.which("mount") or subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("no file system can be mounted here")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.faults
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
@pytest.mark.parametrize("kind", INDICATORS)
def test_a_disk_that_is_full_again_and_again_costs_no_row(
    small_bundle: Path, tmp_path: Path, small_disk: Callable[[str], Path], kind: str, suffix: str
) -> None:
    write_rows(tmp_path / "rows.jsonl", 1500)
    base = arguments(small_bundle, tmp_path / "rows.jsonl", INDICATORS[kind])
    whole = tmp_path / f"whole{suffix}"
    assert Command((*base, "-o", str(whole))).run() == 3
    out = small_disk("16k") / f"out{suffix}"
    full = 0
    for kilobytes in range(16, 10_000, 48):
        small_disk(f"{kilobytes}k")
        code = Command((*base, "-o", str(out), "--resume"), said=tmp_path / "said").run()
        if code == 3:
            break
        assert code == 1
        assert "No space left on device" in (tmp_path / "said").read_text()
        assert not out.exists()
        full += 1
    assert outputs(out) == outputs(whole)
    print(f"{kind} {suffix}: full {full} times")  # noqa: T201 - the figures are the result
    assert full > 2


# Failures of parts


class FailingReads(io.RawIOBase):
    """A file whose disk gives an error behind a position."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file, self._most = file, most

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, target: WriteableBuffer, /) -> int:
        if self._file.tell() >= self._most:
            raise OSError(5, "Input/output error")
        part = self._file.read(min(len(memoryview(target)), 4096))
        memoryview(target)[: len(part)] = part
        return len(part)


@pytest.mark.usefixtures("small_windows")
def test_a_read_error_ends_the_run_and_it_goes_on_when_the_file_can_be_read(
    run: Callable[..., int],
    small_bundle: Path,
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = arguments(small_bundle, rows, INDICATORS["rows"])
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    assert run(*base, "-o", whole) == 3
    original = Path.open

    def failing(path: Path, mode: str, **named: str) -> object:
        file = original(path, mode, **named)  # type: ignore[call-overload]
        begun = (tmp_path / "out.jsonl.partial" / "rows").exists()  # so its digest is taken
        return FailingReads(file, rows.stat().st_size // 2) if path == rows and begun else file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", failing)
        assert run(*base, "-o", out, "--resume") == 1
        assert "Input/output error" in capsys.readouterr().err
    assert run(*base, "-o", out, "--resume") == 3
    assert outputs(out) == outputs(whole)


@pytest.fixture
def batches_run(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of each batch that a model has computed; a negative first item makes the device fail after so many."""
    ran: list[int] = []
    original = GraphSession.run

    def counting(self: GraphSession, batch: Batch, wanted: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        if ran and ran[0] < 0 and len(ran) > -ran[0]:
            raise DeviceError("CUDA failure 999")
        ran.append(batch.ids.size)
        return original(self, batch, wanted)

    monkeypatch.setattr(GraphSession, "run", counting)
    return ran


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("more", [(), ("--knn-against", "others.jsonl")])
def test_what_a_device_computed_before_it_failed_is_not_computed_again(
    run: Callable[..., int],
    small_bundle: Path,
    rows: Path,
    batches_run: list[int],
    monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...],
) -> None:
    tmp_path = rows.parent
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "others.jsonl", 250, seed=1)
    base = (*arguments(small_bundle, rows, INDICATORS["corpus"]), "--batches-at-once", "1", *more)
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    assert run(*base, "-o", whole) == 3
    wanted = sorted(batches_run)
    computed: list[int] = []
    while not out.exists():
        batches_run[:] = [-20]
        assert run(*base, "-o", out, "--resume") in {1, 3}
        computed += batches_run[1:]
    assert outputs(out) == outputs(whole)
    assert sorted(computed) == wanted


# The same run or none


@pytest.fixture
def cut(small_bundle: Path, rows: Path, tmp_path: Path) -> list[str]:
    """The arguments of a run that was cut in its middle."""
    base = [*arguments(small_bundle, rows, INDICATORS["rows"]), "-o", str(tmp_path / "out.jsonl")]
    assert Command(tuple(base), pause_after=3).run(kill_after=60) == CUT
    return base


def append_row(cut: list[str], _: pytest.MonkeyPatch) -> list[str]:
    with Path(cut[1]).open("ab") as file:
        file.write(b'{"instruction": "One more.", "output": "Row."}\n')
    return []


def change_version(_: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(resuming, "__version__", "99")
    return []


def test_a_run_is_not_gone_on_with_with_other_weights_of_the_same_size(
    run: Callable[..., int], small_bundle: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither as they are, nor with a manifest that says they are right."""
    bundle = altered_bundle.copy(small_bundle, rows.parent)
    cut = [*arguments(bundle, rows, INDICATORS["rows"]), "-o", str(rows.with_name("out.jsonl"))]
    assert Command(tuple(cut), pause_after=3).run(kill_after=60) == CUT
    weights = bundle / "perplexity" / "model.onnx.data"
    other = bytearray(weights.read_bytes())
    other[0] ^= 1
    weights.write_bytes(other)
    assert run(*cut, "--resume") == 1
    assert "model.onnx.data: is not the file that was exported" in capsys.readouterr().err
    altered_bundle.rewrite(bundle, "perplexity/model.onnx.data", bytes(other))
    assert run(*cut, "--resume") == 1
    assert "bundle was" in capsys.readouterr().err


def give_other_bundle(cut: list[str], _: pytest.MonkeyPatch) -> list[str]:
    other = Path(cut[1]).parent / "bundle"
    shutil.copytree(cut[cut.index("--bundle") + 1], other)
    manifest = json.loads((other / "manifest.json").read_bytes())
    (other / "manifest.json").write_text(json.dumps(manifest | {"name": "other"}))
    return ["--bundle", str(other)]


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        (append_row, "inputs was"),
        (change_version, "instructmining was .*, is now 99"),
        (give_other_bundle, "bundle was"),
        (["--rule", "paper-v1"], "rule was None, is now paper-v1 [0-9a-f]{64}"),
        (["--indicators", "mtld"], "columns was"),
        (["--prefix", "im_"], "prefix was , is now im_"),
        (["--limit", "290"], "limit was None, is now 290"),
        (["--format", "alpaca"], "format was None, is now alpaca"),
        (["--max-length", "100"], "max_length was None, is now 100"),
        (["--max-row-bytes", "100"], "max_row_bytes was"),
        (["--delimiter", ";"], "delimiter was None, is now ;"),
        (["--encoding", "utf-8"], "encoding was None, is now utf-8"),
        (["--max-batch-tokens", "700"], "batching was"),
        (["--strict"], "strict was False, is now True"),
    ],
)
def test_another_run_than_the_one_that_was_cut_is_refused(
    run: Callable[..., int],
    cut: list[str],
    monkeypatch: pytest.MonkeyPatch,
    change: list[str] | Callable[..., list[str]],
    differs: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = change(cut, monkeypatch) if callable(change) else change
    assert run(*cut, *more, "--resume") == 1
    said = capsys.readouterr().err
    assert re.search(differs, said), said
    assert "give --overwrite to start over" in said
    assert run(*cut, *more, "--overwrite") in {1, 3}  # with --strict, 1


def test_a_run_that_was_cut_is_neither_lost_nor_gone_on_with_unasked(
    run: Callable[..., int], cut: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*cut) == 1
    assert "a run was interrupted there; give --resume to resume it, --overwrite" in capsys.readouterr().err
    assert (tmp_path / "out.jsonl.partial").exists()


@pytest.mark.usefixtures("small_windows")
def test_the_run_file_and_standard_error_say_what_came_from_before(
    run: Callable[..., int], cut: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    committed = json.loads((tmp_path / "out.jsonl.partial" / "state.json").read_bytes())["marks"]["written"]
    assert run(*cut, "--resume") == 3
    told = json.loads((tmp_path / "out.jsonl.run.json").read_bytes())
    counts, before = told["counts"], told["from_before"]
    assert counts["rows_from_before"] == before["rows"] == 3 * small_batching("cpu", []).window_rows
    assert counts["rows_in"] == counts["rows_out"] + counts["rows_rejected"] == ROWS
    assert 0 < before["rejected"] < counts["rows_rejected"]
    assert committed["statistics"]["batches"] <= before["batches"] < told["batches"]
    assert before["texts"] >= sum(committed["statistics"]["texts"].values()) > 0
    assert before["device_seconds"] > 0
    assert all(0 <= share <= 1 for share in told["device_busy_share"].values())
    said = capsys.readouterr().err
    assert re.search(r"resumed; not repeated: 48 rows, \d+ batches of \d+ texts, [\d.]+ device seconds", said)
    earlier = before["rows"] - before["rejected"]
    assert f"scored {counts['rows_out']} rows, {earlier} of them before it was resumed, in " in said


@pytest.mark.usefixtures("small_windows")
def test_batches_that_no_commit_holds_are_counted_as_taken_over(
    run: Callable[..., int], small_bundle: Path, rows: Path, batches_run: list[int]
) -> None:
    out = rows.with_name("out.jsonl")
    base = (*arguments(small_bundle, rows, INDICATORS["corpus"]), "--batches-at-once", "1", "-o", str(out))
    batches_run[:] = [-20]
    assert run(*base) == 1
    batches_run[:] = []
    assert run(*base, "--resume") == 3
    told = json.loads(Path(f"{out}.run.json").read_bytes())
    assert (told["from_before"]["rows"], told["from_before"]["batches"]) == (0, 20)
    assert told["batches"] == 20 + len(batches_run)
    assert told["from_before"]["texts"] > 20
    assert told["from_before"]["device_seconds"] > 0


@pytest.mark.usefixtures("small_windows")
def test_a_run_that_nothing_cut_took_nothing_over(
    run: Callable[..., int], small_bundle: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = rows.with_name("out.jsonl")
    assert run(*arguments(small_bundle, rows, "mtld"), "-o", out, "--resume") == 3
    assert set(json.loads(Path(f"{out}.run.json").read_bytes())["from_before"].values()) == {0}
    assert "resumed" not in capsys.readouterr().err


@pytest.mark.parametrize("more", [("--indicators", "perplexity"), ("--limit", "3"), ("--prefix", "im_")])
def test_a_finished_run_is_not_taken_for_another(
    run: Callable[..., int], small_bundle: Path, rows: Path, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    base = [*arguments(small_bundle, rows, "mtld"), "-o", str(rows.with_name("out.jsonl"))]
    assert run(*base) == 3
    assert run(*base, *more, "--resume") == 1
    assert "was started by another run" in capsys.readouterr().err
    assert run(*base[:1], str(rows.with_name("gone.jsonl")), *base[2:], "--resume") == 1
    rows.with_name("out.jsonl.run.json").unlink()
    assert run(*base, "--resume") == 1
    assert "does not say which run wrote it; give --overwrite" in capsys.readouterr().err


def test_a_refused_run_leaves_what_another_began(
    run: Callable[..., int], small_bundle: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = rows.with_name("out.jsonl")
    base = [*arguments(small_bundle, rows, "mtld"), "-o", str(out)]
    with RunWriter(str(out)) as writer:
        writer.begin({"instructmining": "0.0"})
        shutil.copytree(f"{out}.partial", f"{out}.kept")  # of a run that was killed before it had computed anything
    shutil.move(f"{out}.kept", f"{out}.partial")
    for _ in range(2):
        assert run(*base, "--resume") == 1
        assert "instructmining was 0.0" in capsys.readouterr().err


def test_a_finished_run_has_nothing_to_resume(
    run: Callable[..., int], small_bundle: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    base = [*arguments(small_bundle, rows, "mtld"), "-o", str(out)]
    assert run(*base, "--resume") == 3  # with nothing to resume it begins
    before = out.stat()
    capsys.readouterr()
    assert run(*base, "--resume") == 0
    assert "the run is already finished" in capsys.readouterr().err
    assert (out.stat().st_ino, out.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--resume", "--overwrite"), 2, "give one of them"),
        (("--resume", "-o", "-"), 2, "standard output cannot be resumed"),
    ],
)
def test_what_cannot_be_resumed_is_refused(
    run: Callable[..., int],
    cut: list[str],
    more: tuple[str, ...],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(*cut, *more) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("content", ["longer", "touched"])
def test_an_input_that_changes_while_it_is_scored_is_an_error_but_not_where_it_is_the_same(
    run: Callable[..., int],
    small_bundle: Path,
    rows: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: str,
) -> None:
    write, begun = RunWriter.write, rows.read_bytes()

    def and_then_change(*given: Any) -> None:  # noqa: ANN401 - passed on
        write(*given)
        rows.write_bytes(begun * 2 if content == "longer" else begun)
        os.utime(rows, ns=(1, 1))

    monkeypatch.setattr(RunWriter, "write", and_then_change)
    out = rows.with_name("out.jsonl")
    code = run("score", rows, "-o", out, "--bundle", small_bundle, "--device", "cpu", "--indicators", "mtld")
    assert out.exists() == (content == "touched")
    assert (code == 1) == (content == "longer")
    assert ("was changed while it was read" in capsys.readouterr().err) == (content == "longer")
