from __future__ import annotations

from pathlib import Path

import pytest
from served import client_of, posted
from small_bundle import small_tokenizer
from starlette.testclient import TestClient

from instructmining_serving.http.app import HttpOptions

MESSAGES = [{"role": "user", "content": "Hi <|im_end|>"}]
TEXT = "Naïve: green 日本"


def test_a_prompt_is_tokenized_as_the_models_library_does_and_back(client: TestClient) -> None:
    expected = small_tokenizer().encode(TEXT, add_special_tokens=False)
    said = posted(client, "/tokenize", prompt=TEXT, model="any")
    assert said == {"count": len(expected.ids), "max_model_len": 512, "tokens": expected.ids, "token_strs": None}
    strings = posted(client, "/tokenize", prompt=TEXT, return_token_strs=True)["token_strs"]
    assert strings == expected.tokens
    assert posted(client, "/detokenize", tokens=expected.ids) == {"prompt": TEXT}
    assert posted(client, "/detokenize", tokens=[]) == {"prompt": ""}


def test_a_model_of_the_service_is_named_by_its_id(client: TestClient) -> None:
    said = posted(client, "/tokenize", prompt="a", model="tests/embedding")
    assert (said["max_model_len"], said["count"]) == (64, 3)
    bare = posted(client, "/tokenize", prompt="a", model="tests/embedding", add_special_tokens=False)
    assert bare["tokens"] == said["tokens"][1:-1]


def test_inputs_are_tokenized_with_the_place_of_each_token(client: TestClient) -> None:
    first, second = posted(client, "/tokenize", inputs=[TEXT, "a[SEP]"])
    assert (first[0]["text"], first[-1]["text"]) == ("[CLS]", "[SEP]")
    for token in (first[0], first[-1], second[2]):
        assert (token["special"], token["start"], token["stop"]) == (True, None, None)
    for token in first[1:-1]:
        assert not token["special"]
        assert TEXT[token["start"] : token["stop"]] == token["text"]
    (bare,) = posted(client, "/tokenize", inputs="a", add_special_tokens=False)
    assert [token["text"] for token in bare] == ["a"]


@pytest.mark.parametrize("body", [{}, {"prompt": "a", "inputs": "a"}, {"prompt": "a", "messages": []}, {"text": "a"}])
def test_a_request_of_both_clients_or_of_none_is_refused(client: TestClient, body: dict[str, object]) -> None:
    answer = client.post("/tokenize", json=body)
    assert answer.status_code == 422
    assert 'wanted either "prompt" or "messages", of vLLM, or "inputs"' in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("route", "body", "said"),
    [
        ("/tokenize", {"prompt": 1}, "wanted a text"),
        ("/tokenize", {"messages": []}, "wanted a list of messages that is not empty"),
        ("/tokenize", {"messages": [{"role": "bystander", "content": "a"}]}, "bystander"),
        ("/tokenize", {"messages": MESSAGES, "chat_template": "{{ 1 }}"}, "the bundle's template is used"),
        ("/tokenize", {"messages": MESSAGES, "add_special_tokens": True}, "wanted false; the template has them"),
        ("/tokenize", {"prompt": "a", "add_special_tokens": 1}, "wanted true or false"),
        ("/tokenize", {"prompt": "a", "model": 1}, "wanted a name"),
        ("/tokenize", {"prompt": "a" * 1_000_001}, "has 1,000,001 characters"),
        ("/detokenize", {}, "wanted a list of token ids"),
        ("/detokenize", {"tokens": [True]}, "wanted a list of token ids"),
        ("/detokenize", {"tokens": [400]}, "no token has the id 400"),
        ("/detokenize", {"tokens": [-1]}, "no token has the id -1"),
    ],
)
def test_what_is_wrong_is_refused_in_openais_form(
    client: TestClient, route: str, body: dict[str, object], said: str
) -> None:
    answer = client.post(route, json=body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"inputs": []}, 400, "Empty"),
        ({"inputs": ["a", ""]}, 400, "Empty"),
        ({"inputs": [1]}, 422, "Validation"),
        ({"inputs": "a", "prompt_name": "query"}, 422, "Validation"),
        ({"inputs": "a" * 1_000_001}, 422, "Validation"),
        ({"inputs": ["a"] * 21}, 413, "Validation"),
    ],
)
def test_wrong_inputs_are_refused_in_the_form_of_their_clients(
    client: TestClient, body: dict[str, object], status: int, kind: str
) -> None:
    answer = client.post("/tokenize", json=body)
    assert (answer.status_code, answer.json()["error_type"]) == (status, kind)


def test_more_tokens_than_a_request_may_have_and_no_model_at_all_are_refused(small_bundle: Path) -> None:
    for client in client_of(small_bundle, indicators="mtld", max_tokens=5):
        assert client.post("/detokenize", json={"tokens": [5] * 6}).status_code == 413
        for route, body in (
            ("/tokenize", {"prompt": "a"}),
            ("/detokenize", {"tokens": [5]}),
            ("/tokenize", {"inputs": "a"}),
        ):
            answer = client.post(route, json=body)
            assert (answer.status_code, "serve with --roles" in answer.text) == (404, True)


def test_the_routes_are_in_openapi_with_an_example_that_is_answered(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for route in ("/tokenize", "/detokenize", "/decode"):
        posted(client, route, **paths[route]["post"]["requestBody"]["content"]["application/json"]["example"])


def test_a_conversation_is_tokenized_in_the_template_and_no_text_in_it_is_a_special_token(client: TestClient) -> None:
    said = posted(client, "/tokenize", messages=MESSAGES, return_token_strs=True)
    assert posted(client, "/detokenize", tokens=said["tokens"])["prompt"] == (
        "<|im_start|>user\nHi <|im_end|><|im_end|>\n<|im_start|>assistant\n"
    )
    assert said["token_strs"].count("<|im_end|>") == 1
    answered = [*MESSAGES, {"role": "assistant", "content": "Hello!"}]
    whole = posted(client, "/tokenize", messages=answered, add_generation_prompt=False)["tokens"]
    assert whole[: said["count"]] == said["tokens"]
    assert posted(client, "/detokenize", tokens=whole)["prompt"].endswith("assistant\nHello!<|im_end|>")
    again = posted(client, "/tokenize", messages=answered)["tokens"]
    assert again[: len(whole)] == whole
    assert posted(client, "/detokenize", tokens=again)["prompt"].endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_ids_are_decoded_as_text_embeddings_inference_does(client: TestClient) -> None:
    (tokens,) = posted(client, "/tokenize", inputs=TEXT)
    ids = [token["id"] for token in tokens]
    assert posted(client, "/decode", ids=ids) == [TEXT]
    assert posted(client, "/decode", ids=[ids, []], skip_special_tokens=False) == [f"[CLS]{TEXT}[SEP]", ""]
    for body in ({}, {"ids": "a"}, {"ids": [[1], 2]}, {"ids": [4000]}):
        answer = client.post("/decode", json=body)
        assert (answer.status_code, answer.json()["error_type"]) == (422, "Validation")


def test_tokenizer_info_is_there_if_asked_for(client: TestClient, small_bundle: Path) -> None:
    assert client.get("/tokenizer_info").status_code == 404
    http = HttpOptions(tokenizer_info=True)
    for open_client in client_of(small_bundle, http=http, indicators="perplexity"):
        said = open_client.get("/tokenizer_info").json()
        assert (said["eos_token"], said["bos_token"], said["chat_template"]) == ("<|im_end|>", None, None)
        assert len(posted(open_client, "/tokenize", prompt="<|im_end|>", add_special_tokens=False)["tokens"]) == 1
    for without in client_of(small_bundle, http=http, indicators="mtld"):
        assert without.get("/tokenizer_info").status_code == 404
