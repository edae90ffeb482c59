"""Addresses of stores: one form, no secrets, and paths of this machine left alone."""

from pathlib import Path

import pytest

from instructmining.errors import OutputError, StoreError
from instructmining.stores.addresses import Address, folder_of, is_address, joined, name_of, plain, shown
from instructmining.writing.atomic import claimed


@pytest.mark.parametrize(
    ("text", "one_form"),
    [
        ("s3://bucket/a/b.jsonl", "s3://bucket/a/b.jsonl"),
        ("S3://bucket/a/", "s3://bucket/a"),
        ("s3a://bucket", "s3://bucket"),
        ("gcs://bucket/x", "gs://bucket/x"),
        ("abfs://container/x", "az://container/x"),
        ("az://container@account.dfs.core.windows.net/x", "az://container@account.dfs.core.windows.net/x"),
        ("az://account.blob.core.windows.net/container/x", "az://container@account.dfs.core.windows.net/x"),
        ("hf://datasets/name/set@main/a.parquet", "hf://datasets/name/set@main/a.parquet"),
        ("s3://bucket/part-?.jsonl", "s3://bucket/part-?.jsonl"),
        ("s3://bucket/100%/a#b c.jsonl", "s3://bucket/100%/a#b c.jsonl"),
    ],
)
def test_an_address_has_one_form(text: str, one_form: str) -> None:
    assert is_address(text)
    assert str(Address.parse(text)) == plain(text) == one_form


@pytest.mark.parametrize("path", ["data/rows.jsonl", "/data", "-", "C:\\data\\rows.jsonl", "a:b", "", "s3:/bucket/x"])
def test_other_names_are_paths(path: str) -> None:
    assert not is_address(path)
    assert plain(path) == path


def test_a_file_address_is_a_path_of_this_machine() -> None:
    assert plain("file:///data/a%20b.jsonl") == "/data/a b.jsonl"
    with pytest.raises(StoreError, match="names a host"):
        plain("file://host/data")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://AKIAKEY:SECRET@bucket/x", "holds credentials"),
        ("s3://AKIAKEY:SEC/RET@bucket/x", "holds credentials"),
        ("az://account:SECRET@container/x", "holds credentials"),
        ("https://bucket.s3.amazonaws.com/x?X-Amz-Signature=SECRET", "is no address of a store"),
        ("s3://bucket/x?X-Amz-Signature=SECRET", "has a query"),
        ("s3://bucket/x?versionId=3", "has a query"),
        ("s3://", "names no bucket"),
        ("ftp://host/x", "is no address of a store"),
    ],
)
def test_a_wrong_address_is_refused_without_its_secrets(text: str, said: str) -> None:
    with pytest.raises(StoreError, match=said) as caught:
        Address.parse(text)
    assert "SEC" not in str(caught.value)
    assert "RET" not in str(caught.value)
    assert "SEC" not in shown(text)


def test_names_are_joined_and_parted() -> None:
    assert joined("s3://bucket/a/", "b") == "s3://bucket/a/b"
    assert joined("a", "b") == str(Path("a") / "b")
    assert folder_of("s3://bucket/a/b") == "s3://bucket/a"
    assert name_of("s3://bucket/a/b") == "b"


def test_an_address_that_became_a_path_is_refused_where_it_would_be_written() -> None:
    with pytest.raises(OutputError, match="address of a store"), claimed(Path("s3://bucket/x")):
        pass
