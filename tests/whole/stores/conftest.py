"""Stores of this machine that only these tests need."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cut_runs import write_rows
from object_stores import ACCESS_KEY, SECRET_KEY, S3Server
from other_stores import Store, missing, serving_azure, serving_gcs
from store_client import SETTINGS, Client, Scored


@pytest.fixture(scope="session", params=["gs", "az"])
def other_server(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Google's store, then Azure's."""
    if reason := missing(request.param):
        pytest.skip(reason)
    with {"gs": serving_gcs, "az": serving_azure}[request.param]() as store:
        yield store


@pytest.fixture
def other_store(other_server: Store) -> Store:
    """Google's store, then Azure's; empty, and all requests pass."""
    other_server.reset()
    return other_server


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory, small_bundle: Path) -> Scored:
    """Lines, compressed lines and a Parquet file, with some bad rows; scored on this machine."""
    folder = tmp_path_factory.mktemp("scored")
    (folder / "in").mkdir()
    write_rows(folder / "in" / "a.jsonl", 40, 1)
    write_rows(folder / "b.jsonl", 30, 2)
    (folder / "in" / "b.jsonl.gz").write_bytes(gzip.compress((folder / "b.jsonl").read_bytes(), mtime=0))
    table = pa.table({"instruction": [f"Name {n} colours." for n in range(20)], "output": ["Green and blue."] * 20})
    pq.write_table(table, folder / "in" / "c.parquet", row_group_size=5)
    ended = Client(folder, folder / "cache").run("score", "in", "-o", "one.jsonl", "--bundle", small_bundle, *SETTINGS)
    assert ended.code == 3, ended.said
    rejects = (folder / "one.jsonl.rejects.jsonl").read_bytes()
    return Scored(folder, small_bundle, (folder / "one.jsonl").read_bytes(), rejects)


@pytest.fixture
def client(s3: S3Server, scored: Scored, tmp_path: Path) -> Iterator[Client]:
    """Runs commands next to a bucket that has the inputs and the bundle; at the end looks for secrets in all files."""
    s3.put_folder("in", scored.folder / "in")
    s3.put_folder("bundle", scored.bundle)
    s3.proxy.forget()
    secrets = (SECRET_KEY, ACCESS_KEY, quote_plus(SECRET_KEY), "X-Amz-Signature=", "AWSAccessKeyId=")
    client = Client(tmp_path, tmp_path / "cache", s3.environment(), secrets)
    yield client
    client.check_cache()
    for key, content in s3.objects().items():
        client.check(key, content)
