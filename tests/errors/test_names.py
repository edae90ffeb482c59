from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from instructmining.errors.names import no_such, not_opened


@pytest.mark.parametrize(
    ("name", "there", "message"),
    [
        ("perplexty", ["mtld", "perplexity"], "; did you mean 'perplexity'? There are: mtld, perplexity"),
        ("Reward", ["reward"], "; did you mean 'reward'? There are: reward"),
        (
            "chosen.rewrad",
            ["chosen.reward", "rejected.reward"],
            "; did you mean 'chosen.reward'? There are: chosen.reward, rejected.reward",
        ),
        ("sauce", ["mtld"], ". There are: mtld"),
        ("a", [], "; there are none"),
    ],
)
def test_a_name_that_is_not_there_is_told_with_the_nearest_and_all_that_are(
    name: str, there: list[str], message: str
) -> None:
    assert no_such("column", name, there) == f"no column {name!r}{message}"


def test_of_many_names_some_are_listed_and_the_rest_counted() -> None:
    said = no_such("field", "x", (f"field_{number:03}" for number in range(100)))
    assert said.endswith("field_039 and 60 more")


def test_several_names_are_told_together() -> None:
    said = no_such("indicator", ["perplexty", "wit"], ["mtld", "perplexity"], listed="a few")
    assert said == "no indicator 'perplexty', 'wit'; did you mean 'perplexity'? There are: a few"


def test_a_name_too_long_to_be_one_is_cut_in_the_list() -> None:
    said = no_such("field", "topic", ["instruction", "[" * 3000])
    assert said == f"no field 'topic'. There are: instruction, {'[' * 60}…"


MISSING = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("alpca.json", "alpaca.json"),
        ("Alpaca.JSON", "alpaca.json"),
        ("alpaca.jsonl", "alpaca.json"),
        ("al.json", None),
        ("dolly.csv", None),
        ("gone/alpaca.json", None),
    ],
)
def test_a_file_that_is_not_there_is_told_with_the_one_that_was_meant(
    tmp_path: Path, asked: str, meant: str | None
) -> None:
    (tmp_path / "alpaca.json").touch()
    path = tmp_path / asked
    suggestion = "" if meant is None else f"; did you mean {str(tmp_path / meant)!r}?"
    assert not_opened(str(path), MISSING) == f"{path}: No such file or directory{suggestion}"


def test_a_link_that_leads_nowhere_is_not_what_was_meant(tmp_path: Path) -> None:
    (tmp_path / "alpaca.json").symlink_to(tmp_path / "gone")
    path = str(tmp_path / "alpaca.json")
    assert not_opened(path, MISSING) == f"{path}: No such file or directory"


def test_a_name_without_a_folder_is_looked_for_in_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "alpaca.json").touch()
    monkeypatch.chdir(tmp_path)
    assert not_opened("alpca.json", MISSING).endswith("; did you mean 'alpaca.json'?")
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    assert not_opened("alpca.json", denied) == "alpca.json: Permission denied"
    assert not_opened("s3://alpca.json", MISSING) == "s3://alpca.json: No such file or directory"
