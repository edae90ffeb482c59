from __future__ import annotations

import json

import pytest
from served import posted
from starlette.testclient import TestClient

ROW = {"instruction": "Name a colour.", "output": "Green is a colour."}
TENSOR = {"name": "EXAMPLE", "datatype": "BYTES", "shape": [2], "data": [json.dumps(ROW)] * 2}


def rows_counted(client: TestClient) -> float:
    text = client.get("/metrics").text
    return float(next(line for line in text.splitlines() if line.startswith("instructmining_rows_total ")).split()[1])


@pytest.mark.parametrize(
    ("route", "body", "rows"),
    [
        ("/v1/score", {"examples": [ROW, ROW]}, 2),
        ("/score", {"queries": "a", "documents": ["b", "c", "d"]}, 3),
        ("/rerank", {"query": "a", "documents": ["b", "c"]}, 2),
        ("/rerank", {"query": "a", "texts": ["b", "c"]}, 2),
        ("/classify", {"input": ["a", "b"]}, 2),
        ("/pooling", {"input": "a", "task": "embed"}, 1),
        ("/predict", {"inputs": [["a"], ["a", "b"]]}, 2),
        ("/embed", {"inputs": ["a", "b"]}, 2),
        ("/v1/embeddings", {"input": "a"}, 1),
        ("/v1/completions", {"prompt": ["ab", "cd"], "max_tokens": 1}, 2),
        ("/v2/models/instructmining/infer", {"inputs": [TENSOR]}, 2),
    ],
)
def test_rows_and_texts_are_counted_on_every_route(
    client: TestClient, route: str, body: dict[str, object], rows: int
) -> None:
    before = rows_counted(client)
    posted(client, route, **body)
    assert rows_counted(client) - before == rows


def test_lines_that_are_scored_are_counted(client: TestClient) -> None:
    before = rows_counted(client)
    lines = f"{json.dumps(ROW)}\n1\n{json.dumps(ROW)}\n"
    client.post("/v1/score", content=lines, headers={"content-type": "application/x-ndjson"})
    assert rows_counted(client) - before == 2
