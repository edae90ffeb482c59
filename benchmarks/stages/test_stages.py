"""Each stage by itself, over seeded rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import seeded
from instructmining import Example, Rule, Scorer, read_examples
from instructmining.bundle import Bundle
from instructmining.indicators.mtld import mtld
from instructmining.indicators.plan import plan
from instructmining.inference.batching import Batching
from instructmining.inference.devices import cpu_threads
from instructmining.inference.sessions import ProductSession
from instructmining.knn.exact import kth_distances
from instructmining.knn.tiles import Products
from instructmining.tokenizing.windows import TokenizedWindow, WindowBuilder
from instructmining.types import InputWindow
from instructmining.writing.run_writer import RunWriter

pytestmark = pytest.mark.benchmark(group="stages")

TOKENIZED_ROWS = 1_000
PREDICTED_ROWS = 100_000
VECTORS = 4_000


@pytest.fixture(scope="module")
def builder(bundle: Path) -> WindowBuilder:
    """Tokenizes for perplexity, the embedding and the lengths."""
    opened = Bundle.open(bundle)
    work = plan(opened, None, ["perplexity", "knn_6", "output_length"])
    return WindowBuilder(work, opened.roles[opened.length_tokenizer].tokenizer)


@pytest.fixture(scope="module")
def window(builder: WindowBuilder, examples: list[Example]) -> TokenizedWindow:
    return builder.build(InputWindow(examples[:TOKENIZED_ROWS]))


def test_read_json_lines(benchmark: BenchmarkFixture, rows_file: Path) -> None:
    assert len(benchmark(lambda: list(read_examples(rows_file)))) == seeded.ROWS


def test_tokenize(benchmark: BenchmarkFixture, builder: WindowBuilder, examples: list[Example]) -> None:
    window = benchmark(builder.build, InputWindow(examples[:TOKENIZED_ROWS]))
    assert [len(stream.texts) for stream in window.streams] == [TOKENIZED_ROWS, TOKENIZED_ROWS]


def test_batch(benchmark: BenchmarkFixture, window: TokenizedWindow) -> None:
    batching = Batching.usual("cpu", ["perplexity"])
    part = window.streams[0]
    batches = benchmark(lambda: list(batching.of(part.stream.role, part.texts)))
    assert sum(len(batch.members) for batch in batches) == TOKENIZED_ROWS


def test_mtld(benchmark: BenchmarkFixture, examples: list[Example]) -> None:
    responses = [example.turns[-1].text for example in examples]
    assert len(benchmark(lambda: [mtld(response) for response in responses])) == seeded.ROWS


def test_predict_by_a_rule(benchmark: BenchmarkFixture) -> None:
    rule = Rule.load("paper-v1")
    columns = {name: np.random.default_rng(0).random(PREDICTED_ROWS) for name in rule.terms}
    assert np.isfinite(benchmark(rule.predict, columns)).all()


def test_write_json_lines(benchmark: BenchmarkFixture, bundle: Path, rows_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "scored.jsonl"
    with Scorer.open(bundle, indicators=["output_length", "mtld"], device="cpu") as scorer:
        scored = list(scorer.score(read_examples(rows_file)))

    def write() -> None:
        with RunWriter(str(out), overwrite=True) as writer:
            writer.begin()
            writer.write(scored, [])
            writer.finish({})

    benchmark(write)
    assert out.read_bytes().count(b"\n") == seeded.ROWS


def test_find_neighbours_exactly(benchmark: BenchmarkFixture) -> None:
    vectors = seeded.sentence_vectors(VECTORS)
    products = Products(ProductSession(), cpu_threads())
    assert len(benchmark(kth_distances, vectors, 6, products)) == VECTORS
