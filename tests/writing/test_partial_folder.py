"""Of ``OUT.partial`` nothing is removed that no run has made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from instructmining.errors import OutputError
from instructmining.writing.run_writer import RunWriter


def written(out: Path, *, overwrite: bool = False) -> None:
    with RunWriter(str(out), overwrite=overwrite) as writer:
        writer.begin({"a": 1})
        writer.finish({"identity": {"a": 1}})


def a_folder_of_theirs(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("mine")


def a_link_to_a_folder(path: Path) -> None:
    (path.parent / "home").mkdir()
    (path.parent / "home" / "notes.txt").write_text("mine")
    path.symlink_to(path.parent / "home")


def a_link_to_the_folder_of_a_run(path: Path) -> None:
    a_folder_of_theirs(path.parent / "other")
    (path.parent / "other" / "made-by-instructmining").write_text("")
    path.symlink_to(path.parent / "other")


def a_folder_with_a_state_of_theirs(path: Path) -> None:
    a_folder_of_theirs(path)
    (path / "state.json").write_text("{}")


def a_folder_with_a_lock_of_theirs(path: Path) -> None:
    path.mkdir()
    (path / "lock").write_text("mine")


def a_file(path: Path) -> None:
    path.write_text("mine")


@pytest.mark.parametrize(
    "make",
    [
        a_folder_of_theirs,
        a_link_to_a_folder,
        a_link_to_the_folder_of_a_run,
        a_folder_with_a_state_of_theirs,
        a_folder_with_a_lock_of_theirs,
        a_file,
    ],
)
@pytest.mark.parametrize("more", [{}, {"overwrite": True}, {"resume": True}])
def test_what_no_run_made_is_refused_and_stays(
    tmp_path: Path, make: Callable[[Path], None], more: dict[str, bool]
) -> None:
    make(tmp_path / "out.jsonl.partial")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(OutputError, match=r"out\.jsonl\.partial: exists and was not made by a run.*; move it, or name"):
        RunWriter(str(tmp_path / "out.jsonl"), **more)  # type: ignore[arg-type]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_folder_of_an_earlier_version_is_one_of_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "out.jsonl.partial"
    folder.mkdir()
    state = {"version": 2, "identity": {"a": 1}, "generation": 0, "marks": {}}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "lock").touch()
    with RunWriter(str(tmp_path / "out.jsonl"), resume=True) as writer:
        assert writer.identity == {"a": 1}
    written(tmp_path / "out.jsonl", overwrite=True)
    assert not folder.exists()


@pytest.mark.parametrize("left", [[], ["lock"], ["made-by-instructmining"], ["made-by-instructmining", "rows"]])
def test_a_finished_out_is_finished_whatever_is_left_of_its_folder(tmp_path: Path, left: list[str]) -> None:
    out = tmp_path / "out.jsonl"
    written(out)
    folder = tmp_path / "out.jsonl.partial"
    folder.mkdir()
    for name in left:
        (folder / name).touch()
    with RunWriter(str(out), resume=True) as writer:
        assert writer.finished
        assert writer.identity == {"a": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.jsonl",
        "out.jsonl.rejects.jsonl",
        "out.jsonl.run.json",
    ]


def test_what_somebody_put_into_the_folder_of_a_run_stays_there(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with RunWriter(str(out)) as writer:
        writer.begin()
        (tmp_path / "out.jsonl.partial" / "notes.txt").write_text("mine")
        writer.finish({"identity": {}})
    assert [path.name for path in (tmp_path / "out.jsonl.partial").iterdir()] == ["notes.txt"]
    with RunWriter(str(out), resume=True) as writer:
        assert writer.finished
