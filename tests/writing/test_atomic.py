"""What is written appears whole, once, and over nothing that is read or that somebody else made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from threading import Thread

import pytest

from instructmining.errors import OutputError
from instructmining.writing import atomic
from instructmining.writing.atomic import (
    Placement,
    beside,
    check_apart,
    claimed,
    is_unfinished,
    put_folder,
    sync_folder,
    write_whole,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files and folders that were waited for."""
    found: list[str] = []
    monkeypatch.setattr(atomic.os, "fsync", lambda file: found.append(Path(f"/proc/self/fd/{file}").readlink().name))
    return found


# One file


def test_a_file_is_on_the_disk_before_its_name_and_then_its_name(tmp_path: Path, synced: list[str]) -> None:
    write_whole(tmp_path / "file", b"new")
    with Placement([tmp_path / "other"]) as files:
        files.write(tmp_path / "other", b"newer")
        files.put()
    assert is_unfinished(synced[0], "file")
    assert is_unfinished(synced[2], "other")
    assert synced[1] == synced[3] == tmp_path.name
    assert len(synced) == 4
    assert ((tmp_path / "file").read_bytes(), (tmp_path / "other").read_bytes()) == (b"new", b"newer")


def test_a_folder_that_was_synced_is_let_go(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        sync_folder(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_where_folders_cannot_be_synced_they_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", synced.append)
        patch.setattr(atomic.os, "name", "nt")
        sync_folder(tmp_path)
    assert synced == []


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fsync(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", fsync)
    return iter(())


@pytest.mark.usefixtures("full_disk")
def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(OutputError, match="file: No space left on device"):
        write_whole(tmp_path / "file", b"new")
    with (
        Placement([tmp_path / "file"], overwrite=True) as files,
        pytest.raises(OutputError, match="file: No space left on device"),
    ):
        files.write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


# Several writers


def test_the_second_writer_of_a_target_is_refused_and_the_first_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with Placement([target]) as files:
        with files.open(target) as file:
            file.write(b"first")
            with pytest.raises(OutputError, match="out: another run writes there; wait for it, or name another file"):
                Placement([tmp_path / "other", target])
        files.put()
    assert target.read_bytes() == b"first"
    assert names(tmp_path) == ["out"]
    with Placement([tmp_path / "other", target], overwrite=True):
        pass  # nothing was held on to


def test_a_target_that_came_while_another_wrote_is_not_replaced_unasked(tmp_path: Path) -> None:
    with Placement([tmp_path / "out"]) as files:
        files.write(tmp_path / "out", b"first")
        files.put()
    with pytest.raises(OutputError, match="exists; give --overwrite"):
        Placement([tmp_path / "out"])


KILLED = """
import sys, time, pathlib
from instructmining.writing.atomic import Placement
out = pathlib.Path(sys.argv[1])
with Placement([out]) as files, files.open(out) as file:
    file.write(b"half"); file.flush(); print("at work", flush=True); time.sleep(60)
"""


def test_a_writer_that_was_killed_stops_nobody_and_the_next_removes_what_it_left(tmp_path: Path) -> None:
    (tmp_path / ".out.notes.instructmining").write_bytes(b"mine")
    with subprocess.Popen([sys.executable, "-c", KILLED, tmp_path / "out"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(OutputError, match="another run writes there"):
            Placement([tmp_path / "out"])
        child.send_signal(signal.SIGKILL)
    assert any(is_unfinished(name, "out") for name in names(tmp_path))
    with Placement([tmp_path / "out"]) as files:
        files.write(tmp_path / "out", b"whole")
        files.put()
    assert names(tmp_path) == [".out.notes.instructmining", "out"]


def test_a_folder_is_claimed_by_whatever_path_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "folder")
    for name in (".", "inner/.."):
        with (
            claimed(tmp_path / "folder"),
            pytest.raises(OutputError, match="another run writes there"),
            claimed(Path(name)),
        ):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_who_waits_for_a_target_has_it_when_the_other_is_done(tmp_path: Path) -> None:
    said: list[str] = []
    held = claimed(tmp_path / "cache")
    held.__enter__()

    def wait() -> None:
        with claimed(tmp_path / "cache", on_wait=lambda: said.append("waiting")):
            said.append("at work")

    thread = Thread(target=wait)
    thread.start()
    while not said:
        time.sleep(0.01)
    said.append("done")
    held.__exit__(None, None, None)
    thread.join()
    assert said == ["waiting", "done", "at work"]
    assert names(tmp_path) == []


def _write_often(path: Path, letter: bytes) -> None:
    for _ in range(100):
        write_whole(path, letter * 5000)


def test_two_who_write_a_cache_at_once_both_end_well_and_it_is_of_one_of_them(tmp_path: Path) -> None:
    at_once = get_context("fork")
    children = [at_once.Process(target=_write_often, args=(tmp_path / "cache", letter)) for letter in (b"a", b"b")]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert (tmp_path / "cache").read_bytes() in {b"a" * 5000, b"b" * 5000}
    assert names(tmp_path) == ["cache"]


# Places


def test_a_folder_for_a_target_is_made_and_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with Placement([tmp_path / "new" / "deep" / "out"]) as files:
        files.write(tmp_path / "new" / "deep" / "out", b"")
        files.put()
    with pytest.raises(OutputError, match="new: is a folder; name a file"):
        Placement([tmp_path / "new"], overwrite=True)
    with pytest.raises(OutputError, match="null: is a device or a pipe; name a file, or - for standard output"):
        Placement([os.devnull], overwrite=True)
    with pytest.raises(OutputError, match=r"out.*: Not a directory"):
        Placement([tmp_path / "new" / "deep" / "out" / "more"])
    assert Path(os.devnull).is_char_device()


def links(path: Path) -> dict[str, Callable[[Path], None]]:
    return {
        "the file": lambda _: None,
        "a symbolic link": lambda at: at.symlink_to(path),
        "a hard link": lambda at: at.hardlink_to(path),
    }


@pytest.mark.parametrize("kind", ["the file", "a symbolic link", "a hard link"])
def test_what_is_read_is_no_output_by_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    read = tmp_path / "read"
    read.write_bytes(b"mine")
    output = read if kind == "the file" else tmp_path / "output"
    links(read)[kind](output)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").symlink_to(tmp_path)
    for name in (output, output.name, f"folder/../{tmp_path.name}/{output.name}", f"folder/{output.name}"):
        with pytest.raises(OutputError, match=r"would replace .*read, which this command reads; name another output"):
            check_apart([None, "-", "else", name], [None, "-", "paper-v1", "gone", read])
    check_apart(["gone"], [read])


def test_a_folder_that_is_read_is_all_that_lies_in_it(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    (bundle / "role").mkdir(parents=True)
    (bundle / "role" / "model").write_bytes(b"")
    for output in (bundle, bundle / "role" / "model"):
        with pytest.raises(OutputError, match=r"would replace .*bundle, which this command reads"):
            check_apart([output], [bundle])
    check_apart([bundle / "new"], [bundle])


def test_what_is_read_does_not_lie_in_a_folder_that_is_written(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "rows").write_bytes(b"")
    with pytest.raises(OutputError, match=r"out\.partial: would replace .*rows, which this command reads"):
        check_apart([tmp_path / "out.partial"], [tmp_path / "out.partial" / "rows"])


def test_two_outputs_are_two_files(tmp_path: Path) -> None:
    for other in (tmp_path / "a", tmp_path / "a" / "b", tmp_path / "x" / ".." / "a"):
        with pytest.raises(OutputError, match="is named for two outputs; name another file"):
            check_apart([tmp_path / "a", other], [])


# Folders


def folder_of(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "file").write_text(content)
    return path


def test_a_folder_takes_the_place_of_another_whole(tmp_path: Path) -> None:
    target = tmp_path / "target"
    for content in ("old", "new"):
        with claimed(target):
            put_folder(folder_of(beside(target), content), target)
        assert (target / "file").read_text() == content
        assert names(tmp_path) == ["target"]


def test_a_folder_that_cannot_be_replaced_is_there_again(tmp_path: Path) -> None:
    target = folder_of(tmp_path / "target", "old")
    with claimed(target), pytest.raises(OSError, match="No such file"):
        put_folder(tmp_path / "gone", target)
    assert (target / "file").read_text() == "old"
    assert names(tmp_path) == ["target"]


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="the system has no such names")
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_the_names_of_open_streams_are_not_replaced_also_where_they_lead_to_a_file(name: str) -> None:
    code = f"from instructmining.writing.atomic import *; check_place(Path({name!r}), overwrite=True)"
    with tempfile.TemporaryFile() as stream:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=stream, stderr=subprocess.PIPE, text=True, check=False
        )
    assert "is a device or a pipe; name a file" in done.stderr
