"""Folders and patterns name the same files in a store as on a disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from pretended_store import PretendedStore, store

from instructmining.errors import InputError
from instructmining.reading.sources import expand

__all__ = ["store"]  # a fixture
NAMES = (
    "a.jsonl",
    "b.csv",
    "notes.txt",
    ".hidden.jsonl",
    ".git/x.jsonl",
    "lang=de/x.parquet",
    "lang=en/x.parquet",
    "part-0/rows.jsonl",
    "part-0/deep/rows.json.gz",
    "part-1/rows.jsonl",
    "part-1/.cache/rows.jsonl",
    "z/README.md",
)
SAVED = {
    "saved/dataset_info.json": b"{}",
    "saved/state.json": b'{"_data_files": [{"filename": "b.arrow"}, {"filename": "a.arrow"}]}',
    "saved/a.arrow": b"",
    "saved/b.arrow": b"",
    "saved/stale.arrow": b"",
}


@pytest.fixture(autouse=True)
def _put(store: PretendedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in {**dict.fromkeys(NAMES, b"x"), **SAVED}.items():
        store.put(f"bucket/in/{name}", content)
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(content)


@pytest.mark.parametrize(
    "given",
    [
        "in",
        "in/part-0",
        "in/*.jsonl",
        "in/*",
        "in/part-*",
        "in/part-?/*.jsonl",
        "in/**/*.jsonl",
        "in/**",
        "in/lang=*/*.parquet",
        "in/saved",
        "in/[ab].*",
        "in/.git/*",
        "in/a.jsonl",
    ],
)
def test_a_store_has_the_files_of_a_disk_in_their_order(given: str) -> None:
    here, there = expand([given]), expand([f"s3://bucket/{given}"])
    assert [path.removeprefix("s3://bucket/") for path in there.paths] == list(here.paths)
    assert [top.removeprefix("s3://bucket/") for top in there.partitioned] == list(here.partitioned)
    skipped = [
        sorted(name.removeprefix("s3://bucket/") for one in files.skipped for name in one.names)
        for files in (here, there)
    ]
    assert skipped[0] == skipped[1]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("in/z", "the folder holds no file of rows"),
        ("in/*.parquet", "no file of rows matches"),
    ],
)
def test_nothing_to_read_is_the_same_error(name: str, said: str) -> None:
    for given in (name, f"s3://bucket/{name}"):
        with pytest.raises(InputError, match=said):
            expand([given])


def test_a_missing_file_of_a_saved_data_set_is_an_error(store: PretendedStore) -> None:
    (store.folder / "bucket/in/saved/a.arrow").unlink()
    with pytest.raises(InputError, match=r"s3://bucket/in/saved/a\.arrow: No such file or folder, and datasets saved"):
        expand(["s3://bucket/in"])
