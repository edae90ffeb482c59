from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served import client_of, overloaded, posted, sigmoid
from starlette.testclient import TestClient

from instructmining_serving.scheduling.scheduler import Scheduler
from instructmining_serving.service import ScoringService

PROMPT = "Name a colour."
RESPONSES = ["Green is a colour.", "The train leaves at noon.", "Bread rises because yeast gives off gas."]
LONG = "one two three " * 600
BODIES: dict[str, dict[str, object]] = {
    "/embed": {"inputs": RESPONSES},
    "/predict": {"inputs": [[PROMPT, response] for response in RESPONSES]},
    "/rerank": {"query": PROMPT, "texts": RESPONSES},
}


@pytest.fixture(scope="module")
def rewards(client: TestClient) -> list[float]:
    """The column, as the native route gives it."""
    rows = [{"prompt": PROMPT, "response": response} for response in RESPONSES]
    return [result["columns"]["reward"] for result in posted(client, "/v1/score", examples=rows)["results"]]


def test_embeddings_are_those_of_openais_route(client: TestClient) -> None:
    expected = [each["embedding"] for each in posted(client, "/v1/embeddings", input=RESPONSES)["data"]]
    np.testing.assert_allclose(posted(client, "/embed", inputs=RESPONSES, normalize=True), expected, atol=1e-6)
    np.testing.assert_allclose(posted(client, "/embed", inputs=RESPONSES[0], dimensions=32), expected[:1], atol=1e-6)
    mixed = posted(client, "/embed", inputs=[RESPONSES[0], [3, 7, 4]])
    np.testing.assert_allclose(mixed[0], expected[0], atol=1e-6)
    np.testing.assert_allclose(posted(client, "/embed", inputs=[3, 7, 4]), mixed[1:], atol=1e-6)


def test_long_texts_are_truncated_at_either_end(client: TestClient) -> None:
    words = [token["id"] for token in posted(client, "/tokenize", inputs=LONG, add_special_tokens=False)[0]]
    for side, kept in (("Right", words[:62]), ("left", words[-62:])):
        (found,) = posted(client, "/embed", inputs=LONG, truncation_direction=side)
        (expected,) = posted(client, "/embed", inputs=[3, *kept, 4])
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_rewards_of_pairs_are_the_sigmoid_of_the_column_or_the_column(client: TestClient, rewards: list[float]) -> None:
    (said,) = posted(client, "/predict", inputs=[PROMPT, RESPONSES[0]])
    assert said == {"score": pytest.approx(sigmoid(rewards)[0], rel=1e-5), "label": "LABEL_0"}
    many = posted(client, "/predict", **BODIES["/predict"], raw_scores=True)
    assert [each["score"] for (each,) in many] == pytest.approx(rewards, rel=1e-5)


def test_texts_and_pairs_may_stand_side_by_side(client: TestClient, rewards: list[float]) -> None:
    (alone,) = posted(client, "/predict", inputs=RESPONSES[1], raw_scores=True)
    mixed = posted(client, "/predict", inputs=[[RESPONSES[1]], [PROMPT, RESPONSES[0]]], raw_scores=True)
    assert [each["score"] for (each,) in mixed] == pytest.approx([alone["score"], rewards[0]], rel=1e-4)
    assert alone["score"] != pytest.approx(rewards[1], rel=1e-3)


def test_texts_are_ranked_by_their_reward(client: TestClient, rewards: list[float]) -> None:
    order = sorted(range(3), key=lambda number: -rewards[number])
    said = posted(client, "/rerank", query=PROMPT, texts=RESPONSES)
    assert [each["index"] for each in said] == order
    assert [each["score"] for each in said] == pytest.approx([sigmoid(rewards)[number] for number in order], rel=1e-5)
    assert said[0].keys() == {"index", "score"}
    raw = posted(client, "/rerank", query=PROMPT, texts=RESPONSES, raw_scores=True, return_text=True)
    assert [each["text"] for each in raw] == [RESPONSES[number] for number in order]
    assert [each["score"] for each in raw] == pytest.approx([rewards[number] for number in order], rel=1e-5)


def test_a_rerank_of_both_clients_or_of_none_is_refused(client: TestClient) -> None:
    for body in ({"query": PROMPT}, {"query": PROMPT, "texts": RESPONSES, "documents": RESPONSES}):
        answer = client.post("/rerank", json=body)
        assert answer.status_code == 422
        assert 'wanted either "texts"' in answer.json()["error"]["message"]
    assert client.post("/rerank", content=b"{").status_code == 400


def test_the_model_is_described_with_the_limits_of_a_request(client: TestClient) -> None:
    said = client.get("/info").json()
    assert said["model_type"] == {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
    assert (said["model_id"], said["model_sha"], said["model_dtype"]) == ("tests/reward", "0", "float32")
    assert (said["max_input_length"], said["max_client_batch_size"], said["auto_truncate"]) == (512, 20, True)
    assert said["max_batch_tokens"] > 0


@pytest.mark.parametrize(
    ("route", "body", "status", "kind", "said"),
    [
        ("/embed", {}, 422, "Validation", "wanted a text, token ids"),
        ("/embed", {"inputs": ""}, 400, "Empty", "a text is empty"),
        ("/embed", {"inputs": []}, 400, "Empty", "there is none"),
        ("/embed", {"inputs": ["a", 1]}, 422, "Validation", "wanted a text, token ids"),
        ("/embed", {"inputs": [400]}, 422, "Validation", "no token has the id 400"),
        ("/embed", {"inputs": LONG, "truncate": False}, 422, "Validation", "maximum context length is 64"),
        ("/embed", {"inputs": "a", "normalize": False}, 422, "Validation", "all vectors have length 1"),
        ("/embed", {"inputs": "a", "prompt_name": "query"}, 422, "Validation", "texts are taken as they are"),
        ("/embed", {"inputs": "a", "dimensions": 7}, 422, "Validation", "wanted 32"),
        ("/embed", {"inputs": "a", "truncation_direction": "up"}, 422, "Validation", "wanted right or left"),
        ("/embed", {"inputs": ["a"] * 21}, 413, "Validation", "21 rows, more than 20"),
        ("/predict", {"inputs": ["a", "b", "c"]}, 422, "Validation", "a list of 3 texts; wanted one pair"),
        ("/predict", {"inputs": [["a", "b", "c"]]}, 422, "Validation", "wanted a text, one pair"),
        ("/predict", {"inputs": [[PROMPT, ""]]}, 400, "Empty", "a text is empty"),
        ("/predict", {"inputs": []}, 400, "Empty", "there are none"),
        ("/predict", {"inputs": [["a", " "]]}, 422, "Validation", "row 0: the response is empty"),
        ("/predict", {"inputs": "a", "raw_scores": 1}, 422, "Validation", "wanted false or true"),
        ("/predict", {"inputs": ["a", LONG], "truncate": False}, 422, "Validation", "pair 0 has more than 512 tokens"),
        ("/predict", {"inputs": LONG, "truncate": False}, 422, "Validation", "maximum context length is 512"),
        ("/rerank", {"query": 1, "texts": ["a"]}, 422, "Validation", "wanted a text"),
        ("/rerank", {"query": "a", "texts": []}, 400, "Empty", "there are none"),
        ("/rerank", {"query": "a", "texts": [1]}, 422, "Validation", "wanted a list of texts"),
    ],
)
def test_what_is_wrong_is_refused_in_the_form_of_its_clients(
    client: TestClient, route: str, body: dict[str, object], status: int, kind: str, said: str
) -> None:
    answer = client.post(route, json=body)
    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"error", "error_type"}
    assert answer.json()["error_type"] == kind
    assert said in answer.json()["error"]


def test_long_pairs_are_truncated_as_rows_are(client: TestClient) -> None:
    row = {"prompt": PROMPT, "response": LONG}
    (result,) = posted(client, "/v1/score", examples=[row])["results"]
    assert "reward" in result["truncated"] or "perplexity" in result["truncated"]
    (said,) = posted(client, "/predict", inputs=[PROMPT, LONG], raw_scores=True)
    assert said["score"] == pytest.approx(result["columns"]["reward"], rel=1e-5)


@pytest.mark.parametrize("route", BODIES)
def test_overload_and_warming_up_have_that_form_too(
    client: TestClient, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if route != "/rerank":
        assert client.post(route, content=b"{").json()["error_type"] == "Validation"
    with monkeypatch.context() as full:
        full.setattr(Scheduler, "submit", overloaded)
        answer = client.post(route, json=BODIES[route])
    assert (answer.status_code, answer.json()["error_type"], answer.headers["retry-after"]) == (429, "Overloaded", "3")
    monkeypatch.setattr(ScoringService, "not_ready", "a device fails")
    answer = client.post(route, json=BODIES[route])
    assert (answer.status_code, answer.json()["error_type"]) == (503, "Unhealthy")


def test_models_that_no_column_needs_are_not_served(small_bundle: Path) -> None:
    for client in client_of(small_bundle, indicators="mtld"):
        for route, body in BODIES.items():
            answer = client.post(route, json=body)
            assert (answer.status_code, answer.json()["error_type"]) == (404, "Validation")
            assert "serve with --roles" in answer.json()["error"]
        assert client.get("/info").status_code == 404


def test_the_routes_are_in_openapi_with_an_example_that_is_answered(client: TestClient) -> None:
    paths: dict[str, Any] = client.get("/openapi.json").json()["paths"]
    for route in BODIES:
        said = paths[route]["post"]
        assert {"200", "400", "404", "413", "422", "424", "429", "503"} <= said["responses"].keys()
        posted(client, route, **said["requestBody"]["content"]["application/json"]["example"])


def test_the_root_answers_for_the_model_that_is_described(client: TestClient, small_bundle: Path) -> None:
    body: dict[str, object] = {"inputs": [PROMPT, RESPONSES[0]], "raw_scores": True}
    assert posted(client, "/", **body) == posted(client, "/predict", **body)
    pool = small_bundle.parent / "root.jsonl"
    pool.write_text('{"prompt": "a", "response": "b"}\n' * 7, encoding="utf-8")
    for embedding in client_of(small_bundle, indicators="knn_6", knn_against=str(pool)):
        np.testing.assert_allclose(
            posted(embedding, "/", inputs=RESPONSES), posted(embedding, "/embed", inputs=RESPONSES), atol=1e-6
        )
        assert embedding.post("/", json={"inputs": []}).json()["error_type"] == "Empty"
