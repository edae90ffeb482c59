from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from starlette.testclient import TestClient

from instructmining.errors import RuleError
from instructmining.rules import Rule
from instructmining.scorer.scorer import Scorer
from instructmining_serving.http.app import HttpOptions, create_app
from instructmining_serving.http.bodies import BodyLimits
from instructmining_serving.http.metrics import Metrics
from instructmining_serving.service import ScoringService, ServiceOptions

RULE = Rule("test", 1.0, {"output_length": 0.01, "perplexity": 1e-6})
ROWS: list[dict[str, object]] = [
    {"instruction": "Name a colour.", "output": "Green is a colour."},
    {"instruction": "Count.", "input": "To three", "output": "One two three."},
    {"prompt": "", "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there!"}]},
]
ALPACA = ROWS[:2]


def with_rows(**more: object) -> bytes:
    return json.dumps({"examples": ALPACA, **more}).encode()


def client_of(bundle: Path, *, http: HttpOptions | None = None, **options: Any) -> Iterator[TestClient]:  # noqa: ANN401
    metrics = Metrics()
    chosen = ServiceOptions(bundle, device="cpu", **{"rule": RULE, "indicators": "mtld,ifd,reward", **options})
    with ScoringService.open(chosen, metrics.observer()) as service:
        app = create_app(service, metrics, http or HttpOptions())
        with TestClient(app, raise_server_exceptions=False) as client:
            yield client


@pytest.fixture(scope="module")
def client(small_bundle: Path) -> Iterator[TestClient]:
    yield from client_of(small_bundle, max_rows=50)


@pytest.fixture(scope="module")
def guarded(small_bundle: Path) -> Iterator[TestClient]:
    limits = BodyLimits(max_bytes=2000)
    yield from client_of(small_bundle, http=HttpOptions(token="sésame", bodies=limits), indicators=None, rule=RULE)


def test_rows_are_scored_in_order_with_the_numbers_of_score(client: TestClient, small_bundle: Path) -> None:
    answer = client.post("/v1/score", json={"examples": ALPACA})
    assert answer.status_code == 200
    results = answer.json()["results"]
    with Scorer.open(small_bundle, rule=RULE, indicators="mtld,ifd,reward", device="cpu") as scorer:
        expected = list(scorer.score(ALPACA))
    assert [list(result["columns"]) for result in results] == [list(row.columns) for row in expected]
    for result, row in zip(results, expected, strict=True):
        assert result["columns"] == pytest.approx(row.columns, rel=1e-5)
        assert (result["score_notes"], result["truncated"]) == (row.notes, list(row.truncated))


def test_other_shapes_of_rows_are_accepted(client: TestClient) -> None:
    answer = client.post("/v1/score", json={"examples": [{"messages": ROWS[2]["messages"]}]})
    assert answer.status_code == 200
    assert answer.json()["results"][0]["columns"]["output_length"] > 0


def test_rows_are_selected_by_their_predicted_loss(client: TestClient) -> None:
    rows = [{"instruction": "Name a colour.", "output": "Green. " * number} for number in (5, 1, 3)]
    answer = client.post("/v1/select", json={"examples": rows, "top": 2}).json()
    assert answer["selected"] == [1, 2]
    assert [result["row"] for result in answer["results"]] == [1, 2]
    assert client.post("/v1/select", json={"examples": rows, "fraction": 0.34}).json()["selected"] == [1]
    most = answer["results"][0]["columns"]["predicted_log_loss"]
    assert client.post("/v1/select", json={"examples": rows, "max_loss": most}).json()["selected"] == [1]


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/score", b"{", 400, "the body is not JSON"),
        ("/v1/score", b"[1]", 422, "the body is a list, wanted an object"),
        ("/v1/score", b'{"examples": []}', 422, '"examples" is missing or empty'),
        ("/v1/score", b"{}", 422, '"examples" is missing or empty'),
        ("/v1/score", b'{"examples": [1]}', 422, "row 0: found a number, wanted an object"),
        ("/v1/score", b'{"examples": [{"x": 1}]}', 422, "row 0"),
        ("/v1/score", b"[" * 5000, 400, "not JSON"),
        ("/v1/score", b'{"examples": [{"instruction": "\\ud800", "output": "a"}]}', 400, "not JSON"),
        ("/v1/score", b'{"examples": [{"instruction": NaN}]}', 400, "not JSON"),
        ("/v1/select", json.dumps({"examples": ALPACA}).encode(), 422, "wanted exactly one of top, fraction, max_loss"),
        (
            "/v1/select",
            json.dumps({"examples": ALPACA, "top": 0}).encode(),
            422,
            '"top": wanted a whole number above 0',
        ),
        ("/v1/select", json.dumps({"examples": ALPACA, "fraction": 2}).encode(), 422, '"fraction": wanted a number'),
        ("/nowhere", b"{}", 404, "there is no such route; /docs has all"),
    ],
)
def test_a_malformed_request_is_one_clear_error(
    client: TestClient, path: str, body: bytes, status: int, said: str
) -> None:
    answer = client.post(path, content=body)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["error"]["message"]


def test_one_bad_row_refuses_the_request_with_the_reason_for_each(client: TestClient) -> None:
    rows = [{"foo": 1}, {"instruction": "a", "output": ""}, ALPACA[1], {"instruction": "b"}, [1], ROWS[2]]
    answer = client.post("/v1/score", json={"examples": rows})
    assert answer.status_code == 422
    assert [(row["row"], row["reason"]) for row in answer.json()["error"]["rows"]] == [
        (
            0,
            "no known format; fields found: foo; wanted for example instruction and output, prompt and response, or "
            "messages",
        ),
        (1, "the response is empty"),
        (3, "no response: field 'output' is missing"),
        (4, "found a list, wanted an object"),
    ]


def test_rows_of_one_request_may_have_different_shapes(client: TestClient) -> None:
    rows = [{"messages": ROWS[2]["messages"]}, *ALPACA, {"prompt": "Say hello.", "response": "Good morning to you."}]
    for row, found in zip(rows, client.post("/v1/score", json={"examples": rows}).json()["results"], strict=True):
        (alone,) = client.post("/v1/score", json={"examples": [row]}).json()["results"]
        assert found["columns"] == pytest.approx(alone["columns"], rel=1e-5)
    assert len(client.post("/v1/select", json={"examples": rows, "top": 4}).json()["selected"]) == 4


def test_text_that_is_not_read_is_named_in_the_result(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{**ALPACA[0], "response": "Red."}, ALPACA[1]]
    results = client.post("/v1/score", json={"examples": rows}).json()["results"]
    assert [result["unread"] for result in results] == [["response"], []]
    assert not [record for record in caplog.records if record.name.startswith("instructmining")]


def test_lines_are_not_taken_to_select_among(client: TestClient) -> None:
    answer = client.post("/v1/select", content=with_rows(top=1), headers={"content-type": "application/x-ndjson"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (415, "unsupported")
    assert "lines are not taken here" in answer.json()["error"]["message"]


def test_too_many_rows_or_tokens_are_refused(client: TestClient, small_bundle: Path) -> None:
    answer = client.post("/v1/score", json={"examples": ALPACA * 40})
    assert (answer.status_code, answer.json()["error"]["type"]) == (413, "too_large")
    for small in client_of(small_bundle, max_tokens=20):
        answer = small.post("/v1/score", json={"examples": ALPACA})
        assert (answer.status_code, answer.json()["error"]["type"]) == (413, "too_large")
        assert "tokens for all models, more than 20" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("zstd", zstandard.ZstdCompressor().compress),
    ],
)
def test_compressed_bodies_are_read_and_bounded(guarded: TestClient, encoding: str, encode: Any) -> None:  # noqa: ANN401
    headers = {"content-encoding": encoding, "authorization": "Bearer sésame".encode()}
    good = encode(json.dumps({"examples": ALPACA[:1]}).encode())
    assert guarded.post("/v1/score", content=good, headers=headers).status_code == 200
    bomb = encode(b" " * 50_000_000)
    assert guarded.post("/v1/score", content=bomb, headers=headers).status_code == 413
    cut = guarded.post("/v1/score", content=good[:-6], headers=headers)
    assert (cut.status_code, cut.json()["error"]["type"]) == (400, "bad_request")
    unknown = guarded.post("/v1/score", content=good, headers=headers | {"content-encoding": "br"})
    assert unknown.status_code == 415


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic sésame", "Bearer", "sésame"])
def test_a_token_is_needed_for_all_but_probes(guarded: TestClient, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header.encode()}
    for path in ("/health", "/metrics", "/docs", "/openapi.json", "/nowhere"):
        answer = guarded.get(path, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert guarded.post("/v1/score", json={"examples": ALPACA}, headers=headers).status_code == 401
    assert guarded.get("/health/live").status_code == guarded.get("/health/ready").status_code == 200
    assert guarded.get("/health", headers={"authorization": "bearer sésame".encode()}).status_code == 200


def test_a_request_without_the_token_learns_whether_one_was_sent(guarded: TestClient) -> None:
    missing, wrong = "no token was sent; wanted Authorization: Bearer TOKEN", "the token is not the right one"
    for header, said in ((None, missing), ("Basic abc", missing), ("Bearer", missing), ("Bearer wrong", wrong)):
        headers = {} if header is None else {"authorization": header}
        error = guarded.get("/health", headers=headers).json()["error"]
        assert error == {"message": said, "type": "unauthorized"}
    twice = [("authorization", "Bearer a"), ("authorization", "Bearer b")]
    assert guarded.get("/health", headers=twice).json()["error"]["message"] == wrong
    text = guarded.get("/metrics", headers={"authorization": "Bearer sésame".encode()}).text
    assert 'instructmining_errors_total{kind="unauthorized"}' in text


def test_errors_before_a_route_is_reached_are_in_its_form(guarded: TestClient, client: TestClient) -> None:
    message = "no token was sent; wanted Authorization: Bearer TOKEN"
    openai = {"message": message, "type": "invalid_request_error", "param": None, "code": "unauthorized"}
    for path, said in (
        ("/embed", {"error": message, "error_type": "Validation"}),
        ("/score", {"error": openai}),
        ("/v2/rerank", {"error": openai}),
        ("/v1/completions", {"error": openai}),
        ("/v2/models/instructmining/infer", {"error": message}),
        ("/v2/nowhere", {"error": message}),
        ("/nowhere", {"error": {"message": message, "type": "unauthorized"}}),
        ("/v1/score", {"error": {"message": message, "type": "unauthorized"}}),
    ):
        answer = guarded.post(path, json={})
        assert (answer.status_code, answer.json()) == (401, said)
        assert answer.headers["www-authenticate"] == "Bearer"
    assert client.get("/embed").json().keys() == {"error", "error_type"}
    assert client.get("/score").json()["error"]["code"] == "method_not_allowed"
    assert client.get("/v1/score").json()["error"]["type"] == "method_not_allowed"
    assert client.get("/nowhere").json()["error"]["type"] == "not_found"


def test_health_says_what_runs(client: TestClient) -> None:
    said = client.get("/health").json()
    assert (said["status"], said["rule"]["id"]) == ("ready", "test")
    assert said["devices"] == ["cpu"] or said["devices"][0].startswith("cpu")
    assert "perplexity" in said["columns"]


def test_metrics_count_requests_rows_tokens_and_errors_by_route(client: TestClient) -> None:
    client.post("/v1/score", json={"examples": ALPACA})
    client.post("/v1/score", content=b"{")
    client.get("/secret/path")
    text = client.get("/metrics").text
    assert 'instructmining_requests_total{code="200",method="POST",route="/v1/score"}' in text
    assert 'instructmining_requests_total{code="404",method="GET",route="other"}' in text
    assert 'instructmining_errors_total{kind="bad_request"}' in text
    assert 'instructmining_tokens_total{role="perplexity"}' in text
    assert "instructmining_queue_tokens 0.0" in text
    assert "secret" not in text


def test_a_column_that_needs_neighbours_wants_a_file_of_them(small_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(RuleError, match=r"knn_6 needs the neighbours of each row.* \(--knn-against\)"):
        ScoringService.open(ServiceOptions(small_bundle, indicators="knn_6", device="cpu"))
    pool = tmp_path / "pool.jsonl"
    rows = [{"instruction": f"Name {number}.", "output": f"It is {number}."} for number in range(20)]
    pool.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for client in client_of(small_bundle, rule=None, indicators="knn_6", knn_against=str(pool)):
        result = client.post("/v1/score", json={"examples": ALPACA}).json()["results"][0]
        assert 0 < result["columns"]["knn_6"] < 2


def test_a_service_that_shuts_down_says_503_and_when_to_come_again(small_bundle: Path) -> None:
    tensor = {"name": "EXAMPLE", "datatype": "BYTES", "shape": [1], "data": [json.dumps(ALPACA[0])]}
    options = ServiceOptions(small_bundle, indicators="reward", device="cpu")
    with ScoringService.open(options) as service, TestClient(create_app(service, Metrics(), HttpOptions())) as client:
        for begin in (service.begin_closing, service.scheduler.close):
            begin()  # the second, where a request was taken before the first and queues its texts after it
            for route, body in (
                ("/v1/score", {"examples": ALPACA}),
                ("/score", {"queries": "a", "documents": "b"}),
                ("/predict", {"inputs": "a"}),
                ("/v2/models/instructmining/infer", {"inputs": [tensor]}),
            ):
                answer = client.post(route, json=body)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
                assert "shutting down" in answer.text
            service.closing.clear()
