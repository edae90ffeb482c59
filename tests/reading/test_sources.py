from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from instructmining.errors import InputError, OutputError
from instructmining.reading.examples import read_examples
from instructmining.reading.sources import expand

ROW = b'{"instruction": "a", "output": "%s"}\n'


def write(folder: Path, *names: str) -> None:
    """A row in each file, of which the response is the file's name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(ROW % path.name.encode())


def responses(source: str | Path) -> list[str]:
    return [example.response_texts[0] for example in read_examples(source)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Folders


def test_the_files_of_a_folder_come_in_the_order_of_the_bytes_of_their_paths(here: Path) -> None:
    write(here / "data", "b.jsonl", "a/z.jsonl", "a.jsonl", "B.jsonl", "é.jsonl", "a/b/c.json")
    paths = ["data/B.jsonl", "data/a.jsonl", "data/a/b/c.json", "data/a/z.jsonl", "data/b.jsonl", "data/é.jsonl"]
    assert expand(["data"]).paths == tuple(paths)
    assert responses("data") == [Path(path).name for path in paths]


def test_shards_of_parquet_are_rows_in_their_order(here: Path) -> None:
    for number in (2, 0, 1):
        table = pa.table({"instruction": ["a"], "output": [str(number)]})
        pq.write_table(table, here / f"train-0000{number}-of-00003.parquet")
    assert responses(here) == ["0", "1", "2"]


def test_a_file_called_state_is_rows_where_no_data_set_was_saved(tmp_path: Path) -> None:
    write(tmp_path, "state.json")
    assert responses(tmp_path) == ["state.json"]


def test_hidden_and_unknown_files_and_links_to_folders_are_left_out_and_named(here: Path) -> None:
    write(here / "data", "a.jsonl", ".b.jsonl", ".git/c.jsonl", "README.md", "old.xlsx", "x/LICENSE")
    (here / "data" / "round").symlink_to(here / "data", target_is_directory=True)
    files = expand(["data"])
    assert files.paths == ("data/a.jsonl",)
    (skipped,) = files.skipped
    assert skipped.names == (".b.jsonl", ".git/", "README.md", "old.xlsx", "round/", "x/LICENSE")
    assert str(skipped) == "data: 6 entries are not read: .b.jsonl, .git/, README.md, old.xlsx, round/ and 1 more"


@pytest.mark.parametrize("names", [(), ("README.md", ".a.jsonl")])
def test_a_folder_without_a_file_of_rows_is_an_input_error(here: Path, names: tuple[str, ...]) -> None:
    (here / "data").mkdir()
    write(here / "data", *names)
    found = r"; found \.a\.jsonl, README\.md; wanted JSON" if names else "; wanted JSON"
    with pytest.raises(InputError, match=f"^data: the folder holds no file of rows{found}"):
        read_examples("data")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_cannot_be_listed_is_an_input_error(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", "closed/b.jsonl")
    (tmp_path / "closed").chmod(0)
    with pytest.raises(InputError, match="closed: Permission denied"):
        expand([tmp_path])
    (tmp_path / "closed").chmod(0o700)


# Patterns


def test_a_pattern_is_the_files_that_fit_it_in_order(here: Path) -> None:
    write(here, "data/b.jsonl", "data/a.jsonl", "data/c.json", "data/x/d.jsonl", "data/.e.jsonl", "part-0", "part-1")
    assert expand(["data/*.jsonl"]).paths == ("data/a.jsonl", "data/b.jsonl")
    assert expand(["data/**/*.jsonl"]).paths == ("data/a.jsonl", "data/b.jsonl", "data/x/d.jsonl")
    assert responses("part-*") == ["part-0", "part-1"]  # whatever their kind: the pattern names them


@pytest.mark.parametrize("pattern", ["data/*", "data/**"])
def test_a_pattern_of_stars_alone_is_as_a_folder(here: Path, pattern: str) -> None:
    write(here, "data/b.jsonl", "data/README.md", "data/x/a.jsonl")
    files = expand([pattern])
    assert files.paths == ("data/b.jsonl", "data/x/a.jsonl")
    assert [skipped.where for skipped in files.skipped] == [pattern]


@pytest.mark.parametrize("pattern", ["data/**/*.jsonl", "data/**/a.jsonl", "*/**/a.jsonl", "**/a.jsonl"])
def test_links_that_lead_in_circles_are_left_out_and_named(here: Path, pattern: str) -> None:
    write(here / "data", "sub/a.jsonl")
    (here / "data" / "sub" / "up").symlink_to(here / "data", target_is_directory=True)
    (here / "data" / "sub" / "here").symlink_to(here / "data" / "sub", target_is_directory=True)
    files = expand([pattern])
    assert files.paths == ("data/sub/a.jsonl",)
    (skipped,) = files.skipped
    assert [Path(name).name for name in skipped.names] == ["here", "up"]


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("data/**", ["data/a.jsonl", "data/x/b.jsonl", "data/x/y/c.json"]),
        ("./data/**/*.jsonl", ["./data/a.jsonl", "./data/x/b.jsonl"]),
        ("data/*/**/*.json", ["data/x/y/c.json"]),
        ("data/**/y/**/c.*", ["data/x/y/c.json"]),
        ("**/.h/*.jsonl", ["data/.h/d.jsonl"]),
        ("data/**/.*", ["data/.e.jsonl"]),
    ],
)
def test_two_stars_are_folders_of_any_depth_but_hidden_ones(here: Path, pattern: str, wanted: list[str]) -> None:
    write(here / "data", "a.jsonl", "x/b.jsonl", "x/y/c.json", ".h/d.jsonl", ".e.jsonl")
    assert list(expand([pattern]).paths) == wanted
    absolute = f"{here}/{pattern.removeprefix('./')}"
    assert list(expand([absolute]).paths) == [f"{here}/{path.removeprefix('./')}" for path in wanted]


@pytest.mark.parametrize("source", ["data", "data/*", "data/*.jsonl", "data/**/*.jsonl"])
def test_a_pipe_among_files_is_left_out_and_named(here: Path, source: str) -> None:
    write(here / "data", "a.jsonl")
    os.mkfifo(here / "data" / "b.jsonl")
    files = expand([source])
    assert files.paths == ("data/a.jsonl",)
    assert [Path(name).name for skipped in files.skipped for name in skipped.names] == ["b.jsonl"]


def test_a_file_whose_own_name_looks_like_a_pattern_is_that_file(here: Path) -> None:
    write(here, "rows[1].jsonl", "rows1.jsonl")
    assert responses("rows[1].jsonl") == ["rows[1].jsonl"]


def test_a_pattern_that_nothing_matches_is_an_input_error(here: Path) -> None:
    write(here, "a.jsonl")
    with pytest.raises(InputError, match=r"^\*\.csv: no file of rows matches; wanted JSON"):
        read_examples("*.csv")


def test_files_folders_patterns_and_standard_input_keep_their_order(here: Path) -> None:
    write(here, "z.jsonl", "data/b.jsonl", "data/a.jsonl", "c1.jsonl", "c2.jsonl")
    assert expand(["z.jsonl", "c?.jsonl", "-", "data"]).paths == (
        *("z.jsonl", "c1.jsonl", "c2.jsonl", "-", "data/a.jsonl", "data/b.jsonl"),
    )


# What a run wrote


@pytest.mark.parametrize("source", ["data", "data/*", "data/**"])
@pytest.mark.parametrize("end", [".rejects.jsonl", ".run.json", ".selection.json"])
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_what_a_run_wrote_beside_its_out_is_refused_by_name(here: Path, source: str, end: str, suffix: str) -> None:
    write(here, "data/a.jsonl", f"data/scored{suffix}{end}")
    with pytest.raises(
        InputError, match=rf"^data/scored{suffix}{end}: was written by a run next to .*; move the run's files"
    ):
        expand([source])


@pytest.mark.parametrize("source", ["data", "data/*", "data/**", "data/**/*"])
def test_the_folder_of_a_run_that_was_cut_is_refused_by_name(here: Path, source: str) -> None:
    write(here, "data/a.jsonl", "data/scored.jsonl.partial/rows")
    with pytest.raises(
        InputError, match=r"^data/scored\.jsonl\.partial: was written by a run next to data/scored\.jsonl"
    ):
        expand([source])


def test_names_that_only_look_like_those_of_a_run_are_rows(here: Path) -> None:
    write(here, "data/my.run.json", "data/scored.jsonl")
    assert expand(["data"]).paths == ("data/my.run.json", "data/scored.jsonl")


@pytest.mark.parametrize(
    ("source", "out"),
    [
        ("data", "data/out.jsonl"),
        ("data", "data/x/out.jsonl"),
        (".", "out.jsonl"),
        ("data/*.jsonl", "data/out.jsonl"),
        ("data/*.jsonl", "data/out.parquet"),  # whose rejects would fit
        ("data/**/*.jsonl", "data/x/out.jsonl"),
        ("data/*", "data/x/out.jsonl"),
    ],
)
def test_an_out_among_the_inputs_is_refused_before_there_is_one(here: Path, source: str, out: str) -> None:
    write(here, "data/a.jsonl", "data/x/b.jsonl")
    with pytest.raises(OutputError, match=f"^{out}: .*give -o"):
        expand([source], out=out)


@pytest.mark.parametrize("out", ["out.jsonl", "data2/out.jsonl", "data/y/out.jsonl", "-"])
def test_an_out_elsewhere_is_fine(here: Path, out: str) -> None:
    write(here, "data/a.jsonl", "data2/b.jsonl")
    assert expand(["data/*.jsonl"], out=out).paths == ("data/a.jsonl",)


# Callers


def test_from_python_what_is_left_out_is_logged(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(here / "data", "a.jsonl", "README.md")
    with caplog.at_level("INFO", "instructmining"):
        assert responses("data") == ["a.jsonl"]
    assert caplog.messages == ["data: 1 entry is not read: README.md"]


def test_a_folder_is_scored_and_what_is_left_out_is_said(
    run: Callable[..., int], small_bundle: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here / "data", "b.jsonl", "a.jsonl", "README.md")
    base = ("score", "data", "-o", "out.jsonl", "--bundle", small_bundle, "--indicators", "mtld")
    assert run(*base) == 0
    assert "data: 1 entry is not read: README.md" in capsys.readouterr().err
    rows = [json.loads(line) for line in Path("out.jsonl").read_bytes().splitlines()]
    assert [row["output"] for row in rows] == ["a.jsonl", "b.jsonl"]
    settings = json.loads(Path("out.jsonl.run.json").read_bytes())["settings"]
    assert settings["inputs"] == ["data/a.jsonl", "data/b.jsonl"]
    assert settings["skipped_files"] == ["data: 1 entry is not read: README.md"]
    assert run(*base, "--resume") == 0
    write(here / "data", "c.jsonl")
    assert run(*base, "--resume") == 1
    assert "inputs was" in capsys.readouterr().err


def test_a_folder_is_not_scored_into_itself(
    run: Callable[..., int], small_bundle: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here / "data", "a.jsonl")
    assert run("score", "data", "-o", "data/out.jsonl", "--bundle", small_bundle, "--indicators", "mtld") == 1
    assert "data/out.jsonl: lies in the input data; give -o a file outside of it" in capsys.readouterr().err
    assert [path.name for path in (here / "data").iterdir()] == ["a.jsonl"]


def test_a_pipe_that_is_given_twice_is_refused() -> None:
    with pytest.raises(InputError, match="-: is given twice, but can be read only once"):
        expand(["-", "-"])
