from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import client_of
from starlette.testclient import TestClient


@pytest.fixture(scope="session")
def client(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service with a language model, rewards and embeddings; modules may have another of their own."""
    pool = tmp_path_factory.mktemp("pool") / "pool.jsonl"
    rows = [{"instruction": f"Name {number}.", "output": f"It is {number}."} for number in range(10)]
    pool.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    yield from client_of(small_bundle, indicators="perplexity,reward,knn_6", knn_against=str(pool), max_rows=20)
