from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_models
import torch
from numpy.typing import NDArray
from starlette.testclient import TestClient
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from instructmining.inference.executor import Executor
from instructmining_export import originals, templates
from instructmining_export.bundles import BundleWriter, RoleEntry
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.families import CAUSAL, ENCODERS
from instructmining_export.graphs import bidirectional, causal
from instructmining_export.graphs.tensors import save
from instructmining_export.transformers_versions import graph_settings
from instructmining_serving.http.app import HttpOptions, create_app
from instructmining_serving.http.metrics import Metrics
from instructmining_serving.scheduling.errors import OverloadedError
from instructmining_serving.scheduling.scheduler import Scheduler
from instructmining_serving.service import ScoringService, ServiceOptions

LIMIT = 64
TEXTS = ["Green is a colour, and so are blue and red.", "Count from one to ten.", "Naïve: 日本語"]


@dataclass(frozen=True)
class Originals:
    """The checkpoints that the bundle was made from, as transformers computes them."""

    tokenizer: Any
    causal: Any
    encoder_tokenizer: Any
    encoder: Any

    def log_probabilities(self, ids: list[int]) -> NDArray[np.float32]:
        """Of every token after each token of the text, (width, words)."""
        with torch.inference_mode():
            found: NDArray[np.float32] = self.causal(torch.tensor([ids])).logits[0].log_softmax(-1).numpy()
        return found

    def embedding(self, ids: list[int]) -> NDArray[np.float32]:
        with torch.inference_mode():
            mean: NDArray[np.float32] = self.encoder(torch.tensor([ids])).last_hidden_state[0].mean(0).numpy()
        return mean / np.linalg.norm(mean)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return small_models.causal_model("llama", folder / "llama", vocab_size=390), small_models.encoder_model(
        "bert", folder / "bert"
    )


@pytest.fixture(scope="module")
def original(models: tuple[Path, Path]) -> Originals:
    llama, bert = models
    return Originals(
        AutoTokenizer.from_pretrained(llama),
        AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32).eval(),
        AutoTokenizer.from_pretrained(bert),
        AutoModel.from_pretrained(bert, dtype=torch.float32).eval(),
    )


@pytest.fixture(scope="module")
def bundle(models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model whose texts begin with <s>, and an encoder whose template wants "query: " before rows."""
    path = tmp_path_factory.mktemp("openai") / "bundle"
    checkpoints = [Checkpoint(folder) for folder in models]
    settings = [graph_settings(originals.read_config(checkpoint)) for checkpoint in checkpoints]
    with (
        BundleWriter(path, frozenset(("perplexity", "embedding"))) as writer,
        checkpoints[0].weights() as llama,
        checkpoints[1].weights() as bert,
    ):
        decoder = CAUSAL["llama"].from_config(settings[0], max_length=LIMIT)
        save(causal.build(decoder, llama, vocabulary=True, reward=None).model(), writer.file("perplexity/model.onnx"))
        encoder = ENCODERS["bert"].from_config(settings[1], max_length=LIMIT)
        save(bidirectional.build_embedding(encoder, bert, pooling="mean").model(), writer.file("embedding/model.onnx"))
        encoding = small_models.tokenizer("encoder")
        for role, tokenizer, template, bos in (
            ("perplexity", small_models.tokenizer(), templates.chatml(), "<s>"),
            ("embedding", encoding, templates.document(encoding, "query: "), None),
        ):
            tokenizer.save(str(writer.file(f"{role}/tokenizer.json")))
            writer.file(f"{role}/references.json").write_text('{"output": "nll", "rows": []}')
            writer.roles[role] = RoleEntry(
                graph=f"{role}/model.onnx",
                tokenizer=f"{role}/tokenizer.json",
                template=template,
                max_length=LIMIT,
                source={"id": f"tests/{role}", "revision": "0", "licence": "Apache-2.0"},
                parity={},
                references=f"{role}/references.json",
                bos=bos,
            )
        writer.finish(name="openai", default_rule=None, length_tokenizer="perplexity")
    return path


def client_of(bundle: Path, **options: Any) -> Iterator[TestClient]:  # noqa: ANN401
    metrics = Metrics()
    with ScoringService.open(ServiceOptions(bundle, device="cpu", **options), metrics.observer()) as service:
        app = create_app(service, metrics, HttpOptions())
        with TestClient(app, raise_server_exceptions=False) as client:
            yield client


@pytest.fixture(scope="module")
def client(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    pool = tmp_path_factory.mktemp("pool") / "pool.jsonl"
    rows = [{"instruction": f"Name {number}.", "output": f"It is {number}."} for number in range(10)]
    pool.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    yield from client_of(
        bundle, indicators="perplexity,knn_6", knn_against=str(pool), max_rows=40, max_tokens=40 * LIMIT
    )


def completed(client: TestClient, **body: object) -> Any:  # noqa: ANN401
    asked = {"model": "any/name", "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True, "seed": 1234}
    answer = client.post("/v1/completions", json=asked | body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def read_as_lm_eval_does(choice: Any, context: int) -> tuple[float, bool]:  # noqa: ANN401
    """The lines of lm_eval.models.openai_completions.LocalCompletionsAPI.parse_logprobs, 0.4.13."""
    logprobs = sum(choice["logprobs"]["token_logprobs"][context:-1])
    tokens_logprobs = choice["logprobs"]["token_logprobs"][context:-1]
    top_logprobs = choice["logprobs"]["top_logprobs"][context:-1]
    is_greedy = True
    for tok, top in zip(tokens_logprobs, top_logprobs, strict=True):
        if tok != max(top.values()):
            is_greedy = False
            break
    return logprobs, is_greedy


def check_choice(choice: Any, ids: list[int], original: Originals) -> None:  # noqa: ANN401
    """An answer with echo and one token, against transformers."""
    expected = original.log_probabilities(ids)
    said = choice["logprobs"]
    assert {name: len(values) for name, values in said.items()} == dict.fromkeys(
        ("tokens", "token_logprobs", "top_logprobs", "text_offset"), len(ids) + 1
    )
    assert said["token_logprobs"][0] is said["top_logprobs"][0] is None
    greedy = int(expected[-1].argmax())
    own = [float(expected[at, token]) for at, token in enumerate([*ids[1:], greedy])]
    assert said["token_logprobs"][1:] == pytest.approx(own, abs=1e-4)
    assert [max(top.values()) for top in said["top_logprobs"][1:]] == pytest.approx(expected.max(-1), abs=1e-4)
    assert [token in top for token, top in zip(said["tokens"][1:], said["top_logprobs"][1:], strict=True)]
    assert said["top_logprobs"][-1] == {said["tokens"][-1]: said["token_logprobs"][-1]}
    assert choice["text"] == original.tokenizer.decode([*ids, greedy])
    assert choice["finish_reason"] == "length"


def test_log_probabilities_and_the_next_token_are_those_of_transformers(
    client: TestClient, original: Originals
) -> None:
    ids = [original.tokenizer(text)["input_ids"] for text in TEXTS]
    answer = completed(client, prompt=ids)
    for number, (choice, of_text) in enumerate(zip(answer["choices"], ids, strict=True)):
        assert choice["index"] == number
        check_choice(choice, of_text, original)
    prompt = sum(map(len, ids))
    assert answer["usage"] == {"prompt_tokens": prompt, "completion_tokens": 3, "total_tokens": prompt + 3}
    assert (answer["object"], answer["model"]) == ("text_completion", "any/name")
    assert completed(client, prompt=ids[0])["choices"] == answer["choices"][:1]


def test_lm_eval_reads_the_sum_of_a_continuation_and_whether_it_is_greedy(
    client: TestClient, original: Originals
) -> None:
    context = original.tokenizer(TEXTS[0])["input_ids"]
    greedy, some = list(context), [*context, *original.tokenizer(TEXTS[1])["input_ids"]]
    for _ in range(4):
        greedy.append(int(original.log_probabilities(greedy)[-1].argmax()))
    for ids, is_greedy in ((greedy, True), (some, False)):
        (choice,) = completed(client, prompt=[ids])["choices"]
        expected = original.log_probabilities(ids)
        places = range(len(context), len(ids))
        total, all_greedy = read_as_lm_eval_does(choice, len(context))
        assert total == pytest.approx(sum(expected[at - 1, ids[at]] for at in places), abs=1e-3)
        assert all_greedy is is_greedy


def test_the_order_of_a_batch_is_kept_whatever_the_lengths(client: TestClient, original: Originals) -> None:
    ids = original.tokenizer(TEXTS[0])["input_ids"]
    prompts = [ids[:size] for size in (3, len(ids), 1, 7, 2, len(ids) - 1, 1)]
    choices = completed(client, prompt=prompts)["choices"]
    for choice, prompt in zip(choices, prompts, strict=True):
        check_choice(choice, prompt, original)


def test_texts_begin_as_the_tokenizer_begins_them_and_ids_are_complete(client: TestClient, original: Originals) -> None:
    bos = original.tokenizer.convert_tokens_to_ids("<s>")
    ids = [original.tokenizer(text)["input_ids"] for text in TEXTS]
    answer = completed(client, prompt=TEXTS)
    assert answer["usage"]["prompt_tokens"] == sum(map(len, ids)) + len(ids)
    with_ids = completed(client, prompt=[[bos, *each] for each in ids])
    for text, choice, same in zip(TEXTS, answer["choices"], with_ids["choices"], strict=True):
        assert choice["logprobs"] == same["logprobs"]
        assert choice["text"] == text + choice["logprobs"]["tokens"][-1]
    one = completed(client, prompt=TEXTS[1])["choices"][0]
    assert one["logprobs"] == answer["choices"][1]["logprobs"]
    bare = completed(client, prompt=TEXTS[1], add_special_tokens=False)["choices"][0]
    assert bare == completed(client, prompt=ids[1])["choices"][0]
    (special,) = completed(client, prompt="<|im_start|>", add_special_tokens=False)["choices"]
    assert special["logprobs"]["tokens"][0] == "<|im_start|>"


def test_tokens_and_offsets_follow_the_text(client: TestClient, original: Originals) -> None:
    said = completed(client, prompt=original.tokenizer(TEXTS[0])["input_ids"])["choices"][0]
    logprobs = said["logprobs"]
    assert "".join(logprobs["tokens"]) == said["text"]
    for token, at in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        assert said["text"][at:].startswith(token)


def test_without_echo_there_is_the_generated_token_alone(client: TestClient, original: Originals) -> None:
    ids = original.tokenizer(TEXTS[0])["input_ids"]
    (whole,) = completed(client, prompt=ids)["choices"]
    (alone,) = completed(client, prompt=ids, echo=False)["choices"]
    assert alone["text"] == whole["logprobs"]["tokens"][-1]
    for name in ("tokens", "token_logprobs", "top_logprobs"):
        assert alone["logprobs"][name] == whole["logprobs"][name][-1:]
    for echo, expected in ((False, alone), (True, whole)):
        (without,) = completed(client, prompt=ids, echo=echo, logprobs=None, temperature=None)["choices"]
        assert without == expected | {"logprobs": None}


def test_nothing_is_generated_where_none_is_asked_for(client: TestClient, original: Originals) -> None:
    ids = original.tokenizer(TEXTS[0])["input_ids"]
    (whole,) = completed(client, prompt=ids)["choices"]
    answer = completed(client, prompt=[ids, ids[:1]], max_tokens=0, temperature=1)
    first, single = answer["choices"]
    assert answer["usage"]["completion_tokens"] == 0
    for name, values in whole["logprobs"].items():
        assert first["logprobs"][name] == values[:-1]
    assert first["text"] == original.tokenizer.decode(ids)
    assert single["logprobs"]["token_logprobs"] == [None]
    (only_text,) = completed(client, prompt=ids[:1], max_tokens=0, logprobs=None)["choices"]
    assert (only_text["text"], only_text["logprobs"]) == (original.tokenizer.decode(ids[:1]), None)


def test_no_likeliest_tokens_are_shown_where_only_the_own_are_asked_for(
    client: TestClient, original: Originals
) -> None:
    ids = original.tokenizer(TEXTS[0])["input_ids"]
    said = completed(client, prompt=ids, logprobs=0)["choices"][0]["logprobs"]
    for token, value, top in zip(said["tokens"][1:], said["token_logprobs"][1:], said["top_logprobs"][1:], strict=True):
        assert top == {token: value}


GOOD = {"prompt": [5, 6], "max_tokens": 1}


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [
        ({"max_tokens": None}, "max_tokens", "OpenAI's default is 16; wanted 1, or 0 with echo"),
        ({"max_tokens": 2}, "max_tokens", "wanted 1, or 0 with echo"),
        ({"max_tokens": 0}, "max_tokens", "wanted 1, or 0 with echo"),
        ({"max_tokens": True}, "max_tokens", "wanted 1"),
        ({"max_tokens": 16, "echo": True}, "max_tokens", "wanted 1 or 0"),
        ({"echo": 1}, "echo", "wanted false or true"),
        ({"logprobs": 2}, "logprobs", "wanted null or 0 or 1"),
        ({"logprobs": True}, "logprobs", "wanted null or 0 or 1"),
        ({"temperature": 0.7}, "temperature", "wanted 0; the likeliest token is generated, none is sampled"),
        ({"temperature": 1}, "temperature", "none is sampled"),
        ({"top_p": 0.5}, "top_p", "wanted 1"),
        ({"n": 2}, "n", "wanted 1; one answer to a prompt"),
        ({"best_of": 3}, "best_of", "wanted 1"),
        ({"stream": True}, "stream", "wanted false"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "wanted null"),
        ({"suffix": "end"}, "suffix", "wanted null"),
        ({"stop": ["\n"]}, "stop", "wanted null"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "wanted null"),
        ({"presence_penalty": 1}, "presence_penalty", "wanted 0"),
        ({"frequency_penalty": -1}, "frequency_penalty", "wanted 0"),
        ({"truncate_prompt_tokens": 4}, "truncate_prompt_tokens", "wanted null"),
        ({"model": 3}, "model", "wanted a name"),
        ({"prompt": None}, "prompt", "wanted a text, a list of texts, a list of token ids, or a list of such lists"),
        ({"prompt": []}, "prompt", "wanted a text"),
        ({"prompt": [[]]}, "prompt", "wanted a text"),
        ({"prompt": [5, "a"]}, "prompt", "wanted a text"),
        ({"prompt": [True]}, "prompt", "wanted a text"),
        ({"prompt": [1.5]}, "prompt", "wanted a text"),
        ({"prompt": {"a": 1}}, "prompt", "wanted a text"),
        ({"prompt": ""}, "prompt", "the text is empty"),
        ({"prompt": ["a", ""]}, "prompt", "item 1: the text is empty"),
        ({"prompt": [[5], [6, 390]]}, "prompt", "item 1: no token has the id 390; ids are below 390"),
        ({"prompt": [5, -1]}, "prompt", "no token has the id -1"),
        ({"prompt": [1 << 63]}, "prompt", "no token has the id"),
        ({"prompt": [[5], [6] * LIMIT]}, "prompt", "item 1: 64 tokens and 1 to generate; this model's maximum context"),
        ({"prompt": "a b " * LIMIT}, "prompt", "maximum context length is 64 tokens"),
        ({"prompt": "a" * 1_000_001}, "prompt", "has 1,000,001 characters"),
    ],
)
def test_what_is_not_done_is_refused_in_openais_form(
    client: TestClient, change: dict[str, object], param: str, said: str
) -> None:
    answer = client.post("/v1/completions", json=GOOD | change)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert said in error["message"]
    assert (error["code"] == "context_length_exceeded") is ("context" in said or "characters" in said)


def test_the_longest_prompt_leaves_room_for_what_is_generated(client: TestClient, original: Originals) -> None:
    ids = [5 + number % 300 for number in range(LIMIT)]
    check_choice(completed(client, prompt=ids[:-1])["choices"][0], ids[:-1], original)
    whole = completed(client, prompt=ids, max_tokens=0)["choices"][0]["logprobs"]
    expected = original.log_probabilities(ids)
    own = [float(expected[at, token]) for at, token in enumerate(ids[1:])]
    assert whole["token_logprobs"][1:] == pytest.approx(own, abs=1e-4)


def test_other_errors_have_openais_form_too(client: TestClient) -> None:
    for route in ("/v1/completions", "/v1/embeddings"):
        for content, status, code in ((b"{", 400, "bad_request"), (b"[1]", 400, "invalid")):
            answer = client.post(route, content=content)
            assert answer.status_code == status
            assert answer.json()["error"].items() >= {"type": "invalid_request_error", "code": code}.items()
    answer = client.post("/v1/completions", json=GOOD | {"prompt": [[5]] * 41})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert 'kind="bad_request"' in client.get("/metrics").text


def test_overload_and_warming_up_say_when_to_try_again(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for client in client_of(bundle, indicators="perplexity", max_tokens=5):
        answer = client.post("/v1/completions", json=GOOD | {"prompt": [[5, 6], [7, 8]]})
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
        with monkeypatch.context() as full:
            full.setattr(Scheduler, "submit", overloaded)
            answer = client.post("/v1/completions", json=GOOD)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
        assert answer.json()["error"].items() >= {"type": "rate_limit_error", "code": "overloaded"}.items()
        monkeypatch.setattr(ScoringService, "not_ready", "a device fails")
        answer = client.post("/v1/completions", json=GOOD)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json()["error"] == {
            "message": "not ready: a device fails",
            "type": "server_error",
            "param": None,
            "code": "not_ready",
        }


def overloaded(*_: object) -> None:
    raise OverloadedError("too much waits", 2.3)


def test_a_graph_of_an_earlier_exporter_is_not_served(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for client in client_of(bundle, indicators="perplexity"):
        monkeypatch.setattr(Executor, "outputs", lambda *_: frozenset({"nll"}))
        answer = client.post("/v1/completions", json=GOOD)
        assert answer.status_code == 404
        assert "does not compute best_log_probability; export the bundle again" in answer.json()["error"]["message"]


def test_models_that_no_column_needs_are_not_served(bundle: Path) -> None:
    for client in client_of(bundle, indicators="mtld"):
        for route, option in (("completions", "--roles perplexity"), ("embeddings", "--roles embedding")):
            answer = client.post(f"/v1/{route}", json=GOOD | {"input": "a"})
            assert answer.status_code == 404
            assert answer.json()["error"]["code"] == "not_served"
            assert option in answer.json()["error"]["message"]
        assert client.get("/v1/models").json()["data"] == []


def test_a_model_that_shares_its_graph_with_another_is_served(small_bundle: Path) -> None:
    for client in client_of(small_bundle, indicators="perplexity,reward"):
        said = completed(client, prompt=[[5, 6, 7]])["choices"][0]["logprobs"]
        assert len(said["token_logprobs"]) == 4


def test_the_open_models_are_listed(client: TestClient) -> None:
    said = client.get("/v1/models").json()
    assert said["object"] == "list"
    assert [(model["id"], model["object"], model["max_model_len"]) for model in said["data"]] == [
        ("tests/embedding", "model", LIMIT),
        ("tests/perplexity", "model", LIMIT),
    ]


def embedded(client: TestClient, **body: object) -> Any:  # noqa: ANN401
    answer = client.post("/v1/embeddings", json={"model": "any", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_embeddings_are_those_of_the_text_alone(client: TestClient, original: Originals) -> None:
    ids = [original.encoder_tokenizer(text)["input_ids"] for text in TEXTS]
    said = embedded(client, input=TEXTS)
    assert [(each["object"], each["index"]) for each in said["data"]] == [("embedding", at) for at in range(3)]
    for each, of_text in zip(said["data"], ids, strict=True):
        np.testing.assert_allclose(each["embedding"], original.embedding(of_text), atol=1e-5)
    assert said["usage"] == dict.fromkeys(("prompt_tokens", "total_tokens"), sum(map(len, ids)))
    assert (said["object"], said["model"]) == ("list", "any")
    np.testing.assert_allclose(
        [each["embedding"] for each in embedded(client, input=ids)["data"]],
        [each["embedding"] for each in said["data"]],
        atol=1e-6,
    )
    for one in (TEXTS[0], ids[0]):
        (alone,) = embedded(client, input=one, dimensions=32)["data"]
        np.testing.assert_allclose(alone["embedding"], said["data"][0]["embedding"], atol=1e-6)


def test_embeddings_in_base64_are_float32_from_the_lowest_byte(client: TestClient) -> None:
    numbers = embedded(client, input=TEXTS, encoding_format="float")["data"]
    packed = embedded(client, input=TEXTS, encoding_format="base64")["data"]
    for number, pack in zip(numbers, packed, strict=True):
        np.testing.assert_array_equal(np.frombuffer(base64.b64decode(pack["embedding"]), "<f4"), number["embedding"])


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [
        ({"dimensions": 16}, "dimensions", "wanted 32, the size of the model's vectors"),
        ({"encoding_format": "bytes"}, "encoding_format", "wanted float or base64"),
        ({"input": ""}, "input", "the text is empty"),
        ({"input": []}, "input", "wanted a text"),
        ({"input": [["a"]]}, "input", "wanted a text"),
        ({"input": [[5], [400]]}, "input", "item 1: no token has the id 400"),
        ({"input": ["a", "a b " * LIMIT]}, "input", "maximum context length is 64 tokens"),
    ],
)
def test_an_embedding_that_cannot_be_is_refused(
    client: TestClient, change: dict[str, object], param: str, said: str
) -> None:
    answer = client.post("/v1/embeddings", json={"input": "a", **change})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert said in answer.json()["error"]["message"]
