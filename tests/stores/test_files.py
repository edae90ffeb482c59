"""Files of stores: only what is read is fetched, and what fails says so in one line."""

from __future__ import annotations

import errno
import random

import pytest
from pretended_store import PretendedStore

from instructmining.stores.files import exists, open_file, read_file, remove, size_of, stored, stored_below

CONTENT = bytes(random.Random(0).randbytes(300_000))
ADDRESS = "s3://bucket/folder/rows.jsonl"


@pytest.fixture(autouse=True)
def _put(store: PretendedStore) -> None:
    store.put("bucket/folder/rows.jsonl", CONTENT)


def test_a_file_reads_as_one_of_this_machine_does() -> None:
    with open_file(ADDRESS) as file:
        assert file.read(10) == CONTENT[:10]
        assert file.seek(250_000) == 250_000
        assert file.read(5) == CONTENT[250_000:250_005]
        assert file.seek(-3, 2) == len(CONTENT) - 3
        assert file.read() == CONTENT[-3:]
        assert file.read() == b""
        file.seek(0)
        assert file.read() == CONTENT
    assert read_file(ADDRESS) == CONTENT
    assert size_of(ADDRESS) == len(CONTENT)


def test_a_look_fetches_little_and_reading_in_order_ever_more(store: PretendedStore) -> None:
    store.put("bucket/large", bytes(40 << 20))
    with open_file("s3://bucket/large") as file:
        file.read(8)
        assert store.ranges == [(0, 1 << 16)]
        while file.read(1 << 16):
            pass
    sizes = [size for _, size in store.ranges]
    assert max(sizes) == 8 << 20
    assert sizes[:4] == [1 << 16, 1 << 17, 1 << 18, 1 << 19]
    assert sum(sizes) == 40 << 20


def test_what_is_not_there_is_said() -> None:
    assert not exists("s3://bucket/other")
    assert stored("s3://bucket/folder") is None
    assert exists(ADDRESS)
    with pytest.raises(FileNotFoundError):
        open_file("s3://bucket/other")
    with pytest.raises(FileNotFoundError):
        size_of("s3://bucket/other")
    remove([ADDRESS, "s3://bucket/other"])
    assert not exists(ADDRESS)


def test_a_folder_lists_all_below_it_in_the_order_of_addresses(store: PretendedStore) -> None:
    for name in ("b", "a/z", "a.jsonl", "c/d/e"):
        store.put(f"bucket/folder/{name}", b"x")
    store.put("bucket/folder-2/x", b"x")
    assert [one.path for one in stored_below("s3://bucket/folder")] == [
        f"s3://bucket/folder/{name}" for name in ("a.jsonl", "a/z", "b", "c/d/e", "rows.jsonl")
    ]
    assert stored_below("s3://bucket/nothing") == []


@pytest.mark.parametrize(
    ("said", "number", "wanted"),
    [
        (
            "When reading information for key 'x' in bucket 'b': AWS Error ACCESS_DENIED during HeadObject operation: "
            "No response body.",
            errno.EACCES,
            "the store denies access; check the credentials in the environment",
        ),
        ("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 7, Could", errno.EHOSTUNREACH, "reached"),
        ("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 18, x", errno.EIO, "breaks off again"),
        ("AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation", errno.ENOENT, "no such bucket"),
        ("AWS Error SOMETHING_ELSE during ListObjectsV2 operation", errno.EIO, "the store says something else"),
        ("Cannot parse URI: 's3://KEY:SECRET@bkt/x' for SECRET?sig=SECRET", errno.EIO, "Cannot parse URI"),
    ],
)
def test_an_error_of_the_store_is_one_of_a_file_in_plain_words(
    store: PretendedStore, said: str, number: int, wanted: str
) -> None:
    def fails(call: str, _path: str) -> None:
        if call == "open":
            raise OSError(said)

    store.fails = fails
    with pytest.raises(OSError, match=wanted) as caught:
        open_file(ADDRESS)
    assert caught.value.errno == number
    assert "SECRET@" not in str(caught.value)
    assert "sig" not in str(caught.value)


def test_a_file_that_became_shorter_is_an_error_not_an_end(store: PretendedStore) -> None:
    with open_file(ADDRESS) as file:
        file.read(8)
        store.put("bucket/folder/rows.jsonl", CONTENT[:100_000])
        with pytest.raises(OSError, match="became shorter"):
            file.read()
