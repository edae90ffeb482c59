from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from served import client_of, overloaded, posted
from starlette.testclient import TestClient

from instructmining_serving.http.app import HttpOptions
from instructmining_serving.scheduling.scheduler import Scheduler
from instructmining_serving.service import ScoringService

INFER = "/v2/models/instructmining/infer"
HEADER = "Inference-Header-Content-Length"
ROWS: list[dict[str, object]] = [
    {"instruction": "Name a colour.", "output": "Green is a colour."},
    {"prompt": "Naïve?", "response": "日本"},
]
TEXTS = [json.dumps(row) for row in ROWS]


def bytes_of(texts: list[str]) -> bytes:
    return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)


def tensor(**change: object) -> dict[str, object]:
    return {"name": "EXAMPLE", "datatype": "BYTES", "shape": [2], "data": TEXTS, **change}


def inferred(client: TestClient, request: object, raw: bytes = b"", **headers: str) -> Any:  # noqa: ANN401
    """Return the outputs by name, from JSON or binary."""
    head = json.dumps(request).encode()
    if raw:
        headers[HEADER] = str(len(head))
    answer = client.post(INFER, content=head + raw, headers=headers)
    assert answer.status_code == 200, answer.text
    length = int(answer.headers.get(HEADER, len(answer.content)))
    said, rest = json.loads(answer.content[:length]), answer.content[length:]
    assert (said["model_name"], said["model_version"]) == ("instructmining", "1")
    found: dict[str, Any] = {"id": said.get("id")}
    for output in said["outputs"]:
        if "data" in output:
            found[output["name"]] = output["data"]
            continue
        size = output["parameters"]["binary_data_size"]
        part, rest = rest[:size], rest[size:]
        found[output["name"]] = np.frombuffer(part, "<f8").tolist() if output["datatype"] == "FP64" else part
    assert not rest
    return found


@pytest.fixture(scope="module")
def expected(client: TestClient) -> list[dict[str, Any]]:
    """The results of the native route, a row at a time: the rows have two shapes."""
    return [posted(client, "/v1/score", examples=[row])["results"][0] for row in ROWS]


def test_the_server_and_its_model_are_described(client: TestClient) -> None:
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    for route in ("/v2/models/instructmining", "/v2/models/instructmining/versions/1"):
        said = client.get(route).json()
        assert said["inputs"] == [{"name": "EXAMPLE", "datatype": "BYTES", "shape": [-1]}]
        assert [(output["name"], output["datatype"]) for output in said["outputs"]] == [
            ("reward", "FP64"),
            ("perplexity", "FP64"),
            ("knn_6", "FP64"),
            ("RESULT", "BYTES"),
        ]
        assert client.get(f"{route}/ready").json() == {"name": "instructmining", "ready": True}
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}


def test_rows_as_json_text_have_the_numbers_of_the_native_route(
    client: TestClient, expected: list[dict[str, Any]]
) -> None:
    for row, result in zip(TEXTS, expected, strict=True):
        found = inferred(client, {"id": "7", "inputs": [tensor(shape=[1], data=[row])]})
        assert found["id"] == "7"
        for column, value in result["columns"].items():
            assert found[column] == pytest.approx([value], rel=1e-5)
        assert json.loads(found["RESULT"][0])["columns"] == pytest.approx(result["columns"], rel=1e-5)


def test_binary_inputs_and_outputs_have_the_same_numbers(client: TestClient, expected: list[dict[str, Any]]) -> None:
    for row, result in zip(TEXTS, expected, strict=True):
        raw = bytes_of([row])
        binary = {"name": "EXAMPLE", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(raw)}}
        everything = inferred(client, {"inputs": [binary], "parameters": {"binary_data_output": True}}, raw)
        for column, value in result["columns"].items():
            assert everything[column] == pytest.approx([value], rel=1e-5)
        (length,) = struct.unpack_from("<I", everything["RESULT"])
        assert len(everything["RESULT"]) == 4 + length
        assert json.loads(everything["RESULT"][4:])["columns"] == pytest.approx(result["columns"], rel=1e-5)
        wanted = [{"name": "RESULT"}, {"name": "reward", "parameters": {"binary_data": True}}]
        named = inferred(client, {"inputs": [binary], "outputs": wanted}, raw)
        assert list(named) == ["id", "RESULT", "reward"]
        assert named["reward"] == pytest.approx([result["columns"]["reward"]], rel=1e-5)


def test_many_rows_each_of_any_shape_are_scored_in_order(client: TestClient) -> None:
    rows: list[dict[str, str]] = [
        {"instruction": "Count.", "output": "one two three " * number} for number in range(1, 5)
    ]
    rows.insert(2, {"prompt": "Count.", "response": "four five six seven"})
    expected = [posted(client, "/v1/score", examples=[row])["results"][0] for row in rows]
    found = inferred(client, {"inputs": [tensor(shape=[5], data=[json.dumps(row) for row in rows])]})
    assert found["reward"] == pytest.approx([result["columns"]["reward"] for result in expected], rel=1e-5)


def test_a_column_without_a_value_is_null_in_json_and_nan_in_binary(client: TestClient) -> None:
    pair = json.dumps({"prompt": "Name a colour.", "chosen": "Green.", "rejected": "No."})
    request = {"inputs": [tensor(shape=[1], data=[pair])], "outputs": [{"name": "reward"}, {"name": "RESULT"}]}
    found = inferred(client, request)
    assert found["reward"] == [None]
    assert json.loads(found["RESULT"][0])["columns"]["chosen.reward"] is not None
    binary = inferred(client, request | {"outputs": [{"name": "reward", "parameters": {"binary_data": True}}]})
    assert math.isnan(binary["reward"][0])


def said_of(client: TestClient, content: bytes, status: int = 400, **headers: str) -> str:
    answer = client.post(INFER, content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"error"}
    return str(answer.json()["error"])


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ([], "wanted a JSON object"),
        ({}, "inputs: wanted one, EXAMPLE"),
        ({"inputs": [tensor(), tensor()]}, "inputs: wanted one, EXAMPLE"),
        ({"inputs": [tensor(name="x")]}, "wanted the name EXAMPLE"),
        ({"inputs": [tensor(datatype="FP32")]}, "wanted the datatype BYTES"),
        ({"inputs": [tensor(shape=[0])]}, "shape: wanted [rows]"),
        ({"inputs": [tensor(shape=[-1])]}, "shape: wanted [rows]"),
        ({"inputs": [tensor(shape=[2, 2])]}, "shape: wanted [rows]"),
        ({"inputs": [tensor(shape=[2, True])]}, "shape: wanted [rows]"),
        ({"inputs": [tensor(shape=[3])]}, "data has 2 elements, and the shape says 3"),
        ({"inputs": [tensor(data=[1, 2])]}, "data: wanted a list of texts"),
        ({"inputs": [tensor(data=None)]}, "data: wanted a list of texts"),
        ({"inputs": [tensor(data=["{}", "["])]}, "EXAMPLE, element 1: is not JSON"),
        ({"inputs": [tensor(data=["{}", "1"])]}, "row 1: found a number, wanted an object"),
        ({"inputs": [tensor(parameters=1)]}, "parameters: wanted an object"),
        ({"inputs": [tensor(parameters={"shared_memory_region": "x"})]}, "shared_memory_region is not served"),
        ({"inputs": [tensor(parameters={"binary_data_size": 5})]}, "binary_data_size does not say 0"),
        ({"inputs": [tensor()], "id": 1}, "id: wanted a text"),
        ({"inputs": [tensor()], "parameters": {"binary_data_output": 1}}, "wanted true or false"),
        ({"inputs": [tensor()], "outputs": ["reward"]}, "outputs: wanted a list"),
        ({"inputs": [tensor(shape=[1], data=TEXTS[:1])], "outputs": [{"name": "x"}]}, "no output is named 'x'"),
        (
            {"inputs": [tensor(data=['{"instruction": "a", "output": ""}'] * 2)]},
            "row 0: the response is empty; row 1: the response is empty",
        ),
    ],
)  # fmt: skip
def test_a_wrong_request_is_one_text(client: TestClient, request_: object, said: str) -> None:
    assert said in said_of(client, json.dumps(request_).encode())


@pytest.mark.parametrize(
    ("raw", "size", "rows", "said"),
    [
        (b"\1\0", None, 1, "element 0: the data ends inside of its length"),
        (b"\xff\xff\xff\xff{}", None, 1, "element 0: the data ends inside of it"),
        (b"\2\0\0\0\xff\xff", None, 1, "element 0: is not UTF-8"),
        (b"\2\0\0\0{}", None, 2, "the data has 1 elements, and the shape says 2"),
        (b"\2\0\0\0{}", 5, 1, "binary_data_size does not say 6"),
        (b"\2\0\0\0{}", True, 1, "binary_data_size does not say 6"),
    ],
)
def test_damaged_binary_data_is_refused(client: TestClient, raw: bytes, size: object, rows: int, said: str) -> None:
    given = {"binary_data_size": len(raw) if size is None else size}
    head = json.dumps({"inputs": [{"name": "EXAMPLE", "datatype": "BYTES", "shape": [rows], "parameters": given}]})
    assert said in said_of(client, head.encode() + raw, **{HEADER: str(len(head))})


@pytest.mark.parametrize("length", ["0", "-1", "x", "99999", "9" * 5000, "1e1"])
def test_a_wrong_length_of_the_json_is_refused(client: TestClient, length: str) -> None:
    content = json.dumps({"inputs": [tensor()]}).encode()
    assert "the bytes of the JSON in the body" in said_of(client, content, **{HEADER: length})
    assert "belong to no input" in said_of(client, content + b"ab", **{HEADER: str(len(content))})
    assert "is not JSON" in said_of(client, b"{")


def test_other_models_and_extensions_are_not_found(client: TestClient) -> None:
    for route in ("/v2/models/x", "/v2/models/instructmining/versions/2", "/v2/models/x/ready", "/v2/repository/index"):
        answer = client.get(route)
        assert (answer.status_code, type(answer.json()["error"])) == (404, str)
    assert client.post("/v2/models/x/infer", content=b"{}").status_code == 404
    assert client.post("/v2/models/instructmining/versions/1/infer", content=b"{}").status_code == 400


def test_overload_limits_and_warming_up_have_that_form_too(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    one = json.dumps({"inputs": [tensor(shape=[1], data=TEXTS[:1])]}).encode()
    assert "21 rows" in said_of(client, json.dumps({"inputs": [tensor(shape=[21], data=["{}"] * 21)]}).encode(), 413)
    with monkeypatch.context() as full:
        full.setattr(Scheduler, "submit", overloaded)
        assert said_of(client, one, 429) == "too much waits"
    monkeypatch.setattr(ScoringService, "not_ready", "a device fails")
    assert said_of(client, one, 503) == "not ready: a device fails"
    for route in ("/v2/health/ready", "/v2/models/instructmining/ready"):
        assert client.get(route).status_code == 503
    assert client.get("/v2/health/live").status_code == 200


def test_a_missing_token_is_said_as_text(small_bundle: Any) -> None:  # noqa: ANN401
    for client in client_of(small_bundle, http=HttpOptions(token="x"), indicators="mtld"):
        assert said_of(client, b"{}", 401).startswith("no token was sent")
        assert client.get("/v2").status_code == 401
        assert client.get("/v2/health/ready").status_code == client.get("/v2/health/live").status_code == 200
        assert "message" in client.post("/v2/rerank").json()["error"]


def test_the_route_is_in_openapi_with_an_example_that_is_answered(client: TestClient) -> None:
    said = client.get("/openapi.json").json()["paths"]["/v2/models/{model}/infer"]["post"]
    assert {"200", "400", "404", "413", "429", "503"} <= said["responses"].keys()
    inferred(client, said["requestBody"]["content"]["application/json"]["example"])
