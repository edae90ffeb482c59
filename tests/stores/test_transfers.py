"""Whole files on their way to a store and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from pretended_store import PretendedStore

from instructmining.stores.files import exists, read_file
from instructmining.stores.transfers import download, upload, upload_in_order


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("content", [b"", b"x", bytes(200 << 10)])
def test_a_file_arrives_whole(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "here").write_bytes(content)
    upload(tmp_path / "here", "s3://bucket/a/b")
    assert read_file("s3://bucket/a/b") == content
    download("s3://bucket/a/b", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


@pytest.mark.parametrize("times", [1, 2])
def test_an_upload_that_fails_is_tried_again(store: PretendedStore, tmp_path: Path, times: int) -> None:
    (tmp_path / "here").write_bytes(b"content")
    left = times

    def fails(call: str, _path: str) -> None:
        nonlocal left
        if call == "write" and left:
            left -= 1
            raise OSError("AWS Error SLOW_DOWN during PutObject")

    store.fails = fails
    upload(tmp_path / "here", "s3://bucket/b")
    assert read_file("s3://bucket/b") == b"content"


def test_an_upload_that_keeps_failing_says_why(store: PretendedStore, tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(b"content")

    def fails(call: str, _path: str) -> None:
        if call == "write":
            raise OSError("AWS Error ACCESS_DENIED during PutObject")

    store.fails = fails
    with pytest.raises(OSError, match="denies access"):
        upload(tmp_path / "here", "s3://bucket/b")
    assert not exists("s3://bucket/b")


def test_the_last_file_is_not_there_before_the_others_are(store: PretendedStore, tmp_path: Path) -> None:
    store.put("bucket/mark", b"of an earlier run")
    for name in ("rows", "mark"):
        (tmp_path / name).write_bytes(b"new")
    marks = []

    def fails(call: str, path: str) -> None:
        if call == "write":
            marks.append((path, (store.folder / "bucket/mark").exists()))

    store.fails = fails
    upload_in_order([(tmp_path / name, f"s3://bucket/{name}") for name in ("rows", "mark")])
    assert marks == [("bucket/rows", False), ("bucket/mark", False)]
    assert read_file("s3://bucket/mark") == b"new"


@pytest.mark.usefixtures("store")
def test_the_hub_is_read_and_not_written(tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(b"x")
    with pytest.raises(OSError, match="read here, not written"):
        upload(tmp_path / "here", "hf://datasets/owner/name/rows.jsonl")
