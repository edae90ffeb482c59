from __future__ import annotations

import base64
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
MESSAGES = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": RESPONSES[0]}]
BODIES: dict[str, dict[str, object]] = {
    "/score": {"queries": PROMPT, "documents": RESPONSES},
    "/v1/score": {"text_1": PROMPT, "text_2": RESPONSES},
    "/rerank": {"query": PROMPT, "documents": RESPONSES},
    "/v1/rerank": {"query": PROMPT, "documents": RESPONSES},
    "/v2/rerank": {"query": PROMPT, "documents": RESPONSES},
    "/classify": {"input": RESPONSES},
    "/pooling": {"input": RESPONSES},
}


@pytest.fixture(scope="module")
def rewards(client: TestClient) -> list[float]:
    """The column, as the native route gives it."""
    rows = [{"prompt": PROMPT, "response": response} for response in RESPONSES]
    return [result["columns"]["reward"] for result in posted(client, "/v1/score", examples=rows)["results"]]


def refused(client: TestClient, route: str, body: dict[str, object], status: int = 400) -> Any:  # noqa: ANN401
    answer = client.post(route, json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@pytest.mark.parametrize(
    "names", [("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2")]
)
@pytest.mark.parametrize("route", ["/score", "/v1/score"])
def test_scores_are_the_sigmoid_of_the_column_or_the_column(
    client: TestClient, rewards: list[float], route: str, names: tuple[str, str]
) -> None:
    said = posted(client, route, model="any", **{names[0]: PROMPT, names[1]: RESPONSES})
    assert [each["score"] for each in said["data"]] == pytest.approx(sigmoid(rewards), rel=1e-5)
    assert [(each["index"], each["object"]) for each in said["data"]] == [(at, "score") for at in range(3)]
    assert (said["object"], said["model"]) == ("list", "any")
    assert said["usage"]["prompt_tokens"] == said["usage"]["total_tokens"] > 3 * len(PROMPT.split())
    raw = posted(client, route, use_activation=False, **{names[0]: [PROMPT] * 3, names[1]: RESPONSES})
    assert [each["score"] for each in raw["data"]] == pytest.approx(rewards, rel=1e-5)


def test_the_native_route_still_takes_examples_and_says_what_it_takes(client: TestClient) -> None:
    both = client.post("/v1/score", json={"examples": [{"prompt": PROMPT, "response": "a"}], **BODIES["/score"]})
    neither = client.post("/v1/score", json={"queries": PROMPT})
    assert (both.status_code, neither.status_code) == (422, 422)
    assert 'wanted either {"examples"' in both.json()["error"]["message"]
    for part in ('"examples" is missing', '{"queries", "documents"}'):
        assert part in neither.json()["error"]["message"]


@pytest.mark.parametrize("route", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_documents_are_ranked_by_their_reward(client: TestClient, rewards: list[float], route: str) -> None:
    said = posted(client, route, model="any", query=PROMPT, documents=RESPONSES)
    order = sorted(range(3), key=lambda number: -rewards[number])
    assert [each["index"] for each in said["results"]] == order
    assert [each["relevance_score"] for each in said["results"]] == pytest.approx(
        [sigmoid(rewards)[number] for number in order], rel=1e-5
    )
    assert said["results"][0]["document"] == {"text": RESPONSES[order[0]], "multi_modal": None}
    (best,) = posted(client, route, query=PROMPT, documents=RESPONSES, top_n=1, return_documents=False)["results"]
    assert best.keys() == {"index", "relevance_score"}
    assert best["index"] == order[0]
    for switch in ({"raw_scores": True}, {"use_activation": False}):
        raw = posted(client, route, query=PROMPT, documents=RESPONSES, top_n=0, **switch)["results"]
        assert [each["relevance_score"] for each in raw] == pytest.approx(sorted(rewards, reverse=True), rel=1e-5)


def test_a_conversation_is_classified_in_the_template(client: TestClient, rewards: list[float]) -> None:
    (said,) = posted(client, "/classify", messages=MESSAGES)["data"]
    assert said == {"index": 0, "label": "LABEL_0", "probs": [pytest.approx(sigmoid(rewards)[0])], "num_classes": 1}
    (raw,) = posted(client, "/pooling", messages=MESSAGES, use_activation=False)["data"]
    assert raw == {"index": 0, "object": "pooling", "data": [pytest.approx(rewards[0], rel=1e-5)]}


def test_texts_are_classified_as_they_are(client: TestClient, rewards: list[float]) -> None:
    rendered = f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n{RESPONSES[0]}<|im_end|>"
    (raw,) = posted(client, "/classify", input=rendered, use_activation=False)["data"]
    assert raw["probs"] == pytest.approx(rewards[:1], rel=1e-4)
    many = posted(client, "/classify", input=[rendered, RESPONSES[1]], use_activation=False)["data"]
    assert many[0]["probs"] == pytest.approx(raw["probs"], rel=1e-4)
    pooled = posted(client, "/pooling", input=[rendered, RESPONSES[1]], use_activation=False, task="classify")["data"]
    assert [each["data"] for each in pooled] == [each["probs"] for each in many]
    by_ids = posted(client, "/classify", input=[[5, 6, 7], [8]])["data"]
    assert all(0 < each["probs"][0] < 1 for each in by_ids)


def test_embeddings_are_pooled_where_they_are_asked_for(client: TestClient) -> None:
    expected = [each["embedding"] for each in posted(client, "/v1/embeddings", input=RESPONSES)["data"]]
    said = posted(client, "/pooling", input=RESPONSES, task="embed")
    assert said["model"] == "tests/embedding"
    np.testing.assert_allclose([each["data"] for each in said["data"]], expected, atol=1e-6)
    packed = posted(client, "/pooling", input=RESPONSES, task="embed", encoding_format="base64")["data"]
    np.testing.assert_allclose(
        [np.frombuffer(base64.b64decode(each["data"]), "<f4") for each in packed], expected, atol=1e-6
    )


@pytest.mark.parametrize(
    ("route", "body", "param", "said"),
    [
        ("/score", {}, "queries", "wanted a text"),
        ("/score", {"queries": PROMPT, "documents": []}, "documents", "wanted a text, or a list of texts"),
        ("/score", {"queries": [PROMPT] * 2, "documents": RESPONSES}, "queries", "must be either 1:1, 1:N or N:N"),
        ("/score", {"queries": {"content": []}, "documents": "a"}, "queries", "wanted a text"),
        ("/v1/score", BODIES["/score"] | {"use_activation": 1}, "use_activation", "wanted true or false"),
        ("/score", BODIES["/score"] | {"model": 1}, "model", "wanted a name"),
        ("/score", BODIES["/score"] | {"instruction": "x"}, "instruction", "is not taken"),
        ("/score", BODIES["/score"] | {"documents": ["a", " "]}, None, "row 1: the response is empty"),
        ("/rerank", {"query": 1, "documents": RESPONSES}, "query", "wanted a text"),
        ("/v1/rerank", {"query": PROMPT, "texts": RESPONSES}, "documents", "wanted a text"),
        ("/v2/rerank", BODIES["/rerank"] | {"top_n": -1}, "top_n", "wanted a whole number"),
        ("/v2/rerank", BODIES["/rerank"] | {"top_n": True}, "top_n", "wanted a whole number"),
        ("/v2/rerank", BODIES["/rerank"] | {"max_tokens_per_doc": 5}, "max_tokens_per_doc", "own limit holds"),
        ("/classify", {}, "input", "wanted either input"),
        ("/classify", {"input": "a", "messages": MESSAGES}, "input", "wanted either input"),
        ("/classify", {"input": ""}, "input", "the text is empty"),
        ("/classify", {"input": [[5, 400]]}, "input", "no token has the id 400"),
        ("/classify", {"input": "a b " * 600}, "input", "maximum context length is 512 tokens"),
        ("/classify", {"messages": MESSAGES, "chat_template": "{{ x }}"}, "chat_template", "template is used"),
        ("/classify", {"messages": MESSAGES, "add_generation_prompt": True}, "add_generation_prompt", "wanted false"),
        ("/classify", {"messages": MESSAGES[:1]}, None, "row 0"),
        ("/classify", {"messages": 7}, None, "row 0"),
        ("/pooling", {"input": "a", "task": "token_embed"}, "task", "wanted classify or embed"),
        ("/pooling", {"input": "a", "encoding_format": "bytes"}, "encoding_format", "wanted float or base64"),
        ("/pooling", {"input": "a", "normalize": True}, "normalize", "use_activation"),
        ("/pooling", {"input": "a", "task": "embed", "dimensions": 7}, "dimensions", "wanted 32"),
        ("/pooling", {"input": "a", "task": "embed", "use_activation": False}, "use_activation", "length 1"),
        ("/pooling", {"messages": MESSAGES, "task": "embed"}, "input", "wanted a text"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_in_openais_form(
    client: TestClient, route: str, body: dict[str, object], param: str | None, said: str
) -> None:
    error = refused(client, route, body)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert said in error["message"]


@pytest.mark.parametrize("route", [route for route in BODIES if route not in {"/v1/score", "/rerank"}])
def test_bodies_that_are_not_read_have_that_form_too(client: TestClient, route: str) -> None:
    for content, code in ((b"{", "bad_request"), (b"[1]", "invalid")):
        answer = client.post(route, content=content)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    many = {name: value * 20 if isinstance(value, list) else value for name, value in BODIES[route].items()}
    assert refused(client, route, many, 413)["code"] == "too_large"


@pytest.mark.parametrize("route", BODIES)
def test_overload_and_warming_up_say_when_to_try_again(
    client: TestClient, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr(Scheduler, "submit", overloaded)
        answer = client.post(route, json=BODIES[route])
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert answer.json()["error"]["type"] == "rate_limit_error"
    monkeypatch.setattr(ScoringService, "not_ready", "a device fails")
    answer = client.post(route, json=BODIES[route])
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")


def test_models_that_no_column_needs_are_not_served(small_bundle: Path) -> None:
    for client in client_of(small_bundle, indicators="perplexity"):
        for route, body in BODIES.items():
            error = refused(client, route, body, 404)
            assert (error["code"], "--roles reward" in error["message"]) == ("not_served", route != "/pooling")
        assert "--roles embedding" in refused(client, "/pooling", {"input": "a"}, 404)["message"]


def test_the_routes_are_in_openapi_with_an_example_that_is_answered(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for route in BODIES:
        said = paths[route]["post"]
        assert {"200", "400", "404", "413", "429", "503"} <= said["responses"].keys() or route == "/v1/score"
        example = said["requestBody"]["content"]["application/json"].get("example")
        if example is not None:
            posted(client, route, **example)
