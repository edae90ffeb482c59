from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instructmining.bundle import Bundle
from instructmining.inference.executor import Executor
from instructmining_serving.http.completions import Completion, Prompts, not_computed
from instructmining_serving.raw_texts import RawTokenizer
from instructmining_serving.rows import RowsRefusedError
from instructmining_serving.service import ScoringService, ServiceOptions


@pytest.fixture
def prompts(small_bundle: Path) -> Prompts:
    role = Bundle.open(small_bundle).roles["perplexity"]
    asked = {"prompt": [[5, 200], [6, 7]], "echo": True, "logprobs": 1, "max_tokens": 1}
    return Prompts(Completion.of(asked), role, RawTokenizer(role))


def outputs(nll: list[float], best: list[int], best_log: list[float]) -> dict[str, Any]:
    return {
        "nll": np.array(nll, dtype=np.float32),
        "best_token": np.array(best),
        "best_log_probability": np.array(best_log, dtype=np.float32),
    }


def test_an_impossible_token_has_a_number_that_json_can_hold(prompts: Prompts) -> None:
    choices, _ = prompts.answers(outputs([np.inf, 1, 2, 3], [8, 8, 7, 8], [-0.5, -1, -2, -3]))
    logprobs: Any = choices[0]["logprobs"]
    assert logprobs["token_logprobs"] == [None, -9999.0, -1.0]
    assert sorted(logprobs["top_logprobs"][1].values()) == [-9999.0, -0.5]


def test_the_likeliest_token_has_one_number_in_both_places_also_where_the_graphs_two_differ(prompts: Prompts) -> None:
    close = float(np.nextafter(np.float32(2), np.float32(3)))
    choices, _ = prompts.answers(outputs([1, 1, close, 3], [8, 8, 7, 8], [-0.5, -1, -2, -3]))
    logprobs: Any = choices[1]["logprobs"]
    assert logprobs["token_logprobs"][1] == -2.0
    assert list(logprobs["top_logprobs"][1].values()) == [-2.0]


def test_of_two_tokens_with_one_text_the_likelier_is_shown(small_bundle: Path) -> None:
    tokenizer = RawTokenizer(Bundle.open(small_bundle).roles["perplexity"])
    fragments = [token for token in range(5, 300) if tokenizer.string(token) == "\ufffd"]
    role = Bundle.open(small_bundle).roles["perplexity"]
    asked = {"prompt": [5, fragments[0]], "echo": True, "logprobs": 1, "max_tokens": 0}
    found = Prompts(Completion.of(asked), role, tokenizer)
    (choice,), _ = found.answers(outputs([4], [fragments[1]], [-0.5]))
    logprobs: Any = choice["logprobs"]
    assert (logprobs["token_logprobs"][1], logprobs["top_logprobs"][1]) == (-4.0, {"\ufffd": -0.5})


def test_an_output_that_is_not_a_number_refuses_the_request(prompts: Prompts) -> None:
    with pytest.raises(RowsRefusedError, match="row 1: the model's output is not a number"):
        prompts.answers(outputs([1, 1, np.nan, 3], [8, 8, 7, 8], [-0.5, -1, -2, -3]))


def test_a_graph_without_what_completions_need_is_known_before_they_are_asked_for(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScoringService.open(ServiceOptions(small_bundle, indicators="perplexity", device="cpu")) as service:
        assert not_computed(service) is None
        monkeypatch.setattr(Executor, "outputs", lambda *_: frozenset({"nll", "best_token"}))
        assert not_computed(service) == (
            "/v1/completions is not served: the perplexity model's graph does not compute best_log_probability; "
            "export the bundle again"
        )
    with ScoringService.open(ServiceOptions(small_bundle, indicators="mtld", device="cpu")) as service:
        assert not_computed(service) is None
