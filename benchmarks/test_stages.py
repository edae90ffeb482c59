"""Each stage and the whole path against its peers: a peer is a parameter of the same test.

Loading of models, tokenizers and data, and one warm-up run, are outside the clock. The warm-up's result is checked
against the peers' before anything is timed: same rows, same numbers within 1e-4. No test asserts a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import peers
import pytest
import seeded
from clock import Clock
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from instructmining import Bundle, Example, Rule, Scorer, Statistics, read_examples, select
from instructmining.batches import batches
from instructmining.indicators.mtld import mtld
from instructmining.indicators.perplexity import mean_nll
from instructmining.measuring import measure
from instructmining.neighbours import kth_distances
from instructmining.plans import plan
from instructmining.records import Batch, Measurements
from instructmining.scorer import BUDGET_TOKENS, WINDOW_ROWS
from instructmining.selection import Choice
from instructmining.sessions import Device, GraphSession, TopKSession
from instructmining.windows import Window, WindowBuilder
from instructmining.writers import RunWriter

pytestmark = pytest.mark.timeout(1800)  # rounds of the slowest peer on a machine that others use too

WITHIN = 1e-4
HOST_ROUNDS = 7
MODEL_ROUNDS = 3
TOP = 1000
INDICATORS = ("perplexity", "reward", "knn_6", "mtld", "output_length")
BATCHINGS = {
    "transformers, one by one": peers.alone,
    "transformers, sorted batches": peers.sorted_batches,
    "transformers, unsorted batches": peers.unsorted_batches,
}
BUDGET = BUDGET_TOKENS["cpu"]


@pytest.mark.parametrize("peer", ["ours", "json"])
def test_read_and_format(peer: str, seeded_file: Path, clock: Clock) -> None:
    """A file of JSON lines to prompts and responses. Ours also keeps each row's bytes and place."""
    wanted = peers.read(seeded_file)

    def check(found: list[Example] | list[tuple[str, str]]) -> None:
        pairs = [(row.turns[0].text, row.turns[1].text) if isinstance(row, Example) else row for row in found]
        assert pairs == wanted

    runs: dict[str, Callable[[], list[Example] | list[tuple[str, str]]]] = {
        "ours": lambda: list(read_examples(seeded_file)),
        "json": lambda: peers.read(seeded_file),
    }
    clock("read + format, 5,000 rows", peer, runs[peer], check, rounds=HOST_ROUNDS)


@pytest.mark.parametrize("peer", ["ours", "transformers"])
def test_tokenize_and_batch(
    peer: str,
    seeded_file: Path,
    seeded_examples: list[Example],
    bundle: Bundle,
    chat_tokenizer: PreTrainedTokenizerFast,
    clock: Clock,
) -> None:
    """Conversations in the chat template to padded batches with the response tokens known, under one budget.

    The peer sorts all rows at once; ours, which streams, sorts within windows of 512.
    """
    pairs = peers.read(seeded_file)
    wanted = [(text.ids, text.response) for text in peers.tokenize(chat_tokenizer, pairs)]
    builder = _builder(bundle, "perplexity")

    def check(found: list[tuple[list[int], int]]) -> None:
        assert found == wanted

    if peer == "ours":
        clock(
            "tokenize + batch, 5,000 rows",
            peer,
            lambda: _batched(builder, seeded_examples),
            lambda windows: check(_conversations(windows)),
            rounds=HOST_ROUNDS,
        )
        return

    def run() -> tuple[list[peers.ChatText], list[peers.ChatBatch]]:
        texts = peers.tokenize(chat_tokenizer, pairs)
        return texts, peers.pad(chat_tokenizer, texts, budget_tokens=BUDGET)

    def check_peer(result: tuple[list[peers.ChatText], list[peers.ChatBatch]]) -> None:
        texts, padded = result
        ids = {
            row: of_row[mask > 0].tolist()
            for batch in padded
            for row, of_row, mask in zip(batch.rows, batch.ids, batch.mask, strict=True)
        }
        check([(ids[row], text.response) for row, text in enumerate(texts)])

    clock("tokenize + batch, 5,000 rows", peer, run, check_peer, rounds=HOST_ROUNDS)


@dataclass(frozen=True, slots=True)
class Chats:
    """The real rows as conversations: the same tokens for both sides."""

    window: Window
    texts: list[peers.ChatText]
    losses: NDArray[np.float64]  # (rows,) mean NLL by transformers, each row by itself


@pytest.fixture(scope="module")
def chats(bundle: Bundle, models: peers.Models, real_examples: list[Example]) -> Chats:
    window = _window(bundle, "perplexity", real_examples)
    texts = []
    for text in window.streams[0].texts:
        first = int(text.scored[0])
        # All from the response's first token to the last but the closing one, or the peer's work differs.
        assert text.scored.tolist() == list(range(first, len(text.ids) - 1))
        texts.append(peers.ChatText(text.ids.tolist(), first))
    return Chats(window, texts, peers.likelihoods(models.language_model, texts, peers.alone)[0])


@pytest.mark.parametrize("peer", ["ours", *BATCHINGS])
def test_perplexity(peer: str, chats: Chats, device: Device, models: peers.Models, clock: Clock) -> None:
    """Token ids to the mean NLL of each response given its prompt, float32."""
    run_graph = _measuring(chats.window, device)

    def ours() -> NDArray[np.float64]:
        sums = run_graph().conversation_nll
        assert sums is not None
        return mean_nll(sums)

    def theirs() -> NDArray[np.float64]:
        return peers.likelihoods(models.language_model, chats.texts, BATCHINGS[peer])[0]

    clock(
        f"perplexity, {len(chats.texts)} rows, {sum(len(text.ids) for text in chats.texts):,} tokens",
        peer,
        ours if peer == "ours" else theirs,
        lambda found: assert_allclose(found, chats.losses, rtol=0, atol=WITHIN),
        rounds=MODEL_ROUNDS,
    )


@pytest.mark.parametrize("peer", ["ours", *BATCHINGS])
def test_embedding(
    peer: str, bundle: Bundle, device: Device, models: peers.Models, real_examples: list[Example], clock: Clock
) -> None:
    """Token ids to unit sentence vectors, float32."""
    window = _window(bundle, "knn_6", real_examples)
    texts = [text.ids.tolist() for text in window.streams[0].texts]
    wanted = peers.embeddings(models.sentence_model, texts, peers.alone)
    run_graph = _measuring(window, device)

    def ours() -> NDArray[np.float32]:
        vectors = run_graph().embedding
        assert vectors is not None
        return vectors

    def theirs() -> NDArray[np.float32]:
        return peers.embeddings(models.sentence_model, texts, BATCHINGS[peer])

    clock(
        f"embedding, {len(texts)} rows, {sum(map(len, texts)):,} tokens",
        peer,
        ours if peer == "ours" else theirs,
        lambda found: assert_allclose(found, wanted, rtol=0, atol=WITHIN),
        rounds=MODEL_ROUNDS,
    )


@pytest.mark.parametrize("peer", ["ours", "lexicalrichness"])
def test_mtld(peer: str, seeded_examples: list[Example], clock: Clock) -> None:
    """Responses to MTLD; the values are equal within 1e-9."""
    texts = [example.turns[-1].text for example in seeded_examples]
    wanted = peers.mtld(texts)
    runs: dict[str, Callable[[], list[float]]] = {
        "ours": lambda: [mtld(text) for text in texts],
        "lexicalrichness": lambda: peers.mtld(texts),
    }
    clock(
        "mtld, 5,000 rows",
        peer,
        runs[peer],
        lambda found: assert_allclose(found, wanted, rtol=0, atol=1e-9),
        rounds=HOST_ROUNDS,
    )


@pytest.mark.parametrize("peer", ["ours", "scikit-learn"])
def test_knn_6(peer: str, device: Device, clock: Clock) -> None:
    """Unit vectors to the exact distance to the sixth nearest other row."""
    vectors = seeded.unit_vectors()
    wanted = peers.neighbour_distances(vectors)
    top_k = TopKSession(device)
    runs: dict[str, Callable[[], NDArray[np.float64]]] = {
        "ours": lambda: kth_distances(vectors, peers.NEIGHBOUR, top_k),
        "scikit-learn": lambda: peers.neighbour_distances(vectors),
    }
    clock(
        "knn_6, 5,000 x 384",
        peer,
        runs[peer],
        lambda found: assert_allclose(found, wanted, rtol=0, atol=WITHIN),
        rounds=MODEL_ROUNDS,
    )


@pytest.mark.parametrize("peer", ["ours", "python"])
def test_rule(peer: str, clock: Clock) -> None:
    """Columns to predictions."""
    rule, columns = Rule.load("paper-v1"), seeded.columns(seeded.ROWS)
    wanted = peers.predict(rule.intercept, dict(rule.terms), columns)
    runs: dict[str, Callable[[], NDArray[np.float64] | list[float]]] = {
        "ours": lambda: rule.predict(columns),
        "python": lambda: peers.predict(rule.intercept, dict(rule.terms), columns),
    }
    clock(
        "rule, 5,000 rows",
        peer,
        runs[peer],
        lambda found: assert_allclose(found, wanted, rtol=0, atol=1e-12),
        rounds=HOST_ROUNDS,
    )


@pytest.mark.parametrize("peer", ["ours", "python"])
def test_select(peer: str, tmp_path: Path, clock: Clock) -> None:
    """A scored file to the file of its 1,000 best rows as they were before scoring.

    Ours reads twice and holds one number a row; the peer holds all rows.
    """
    columns = seeded.columns(seeded.ROWS)
    columns["predicted_log_loss"] = Rule.load("paper-v1").predict(columns)
    scored = seeded.write_scored(tmp_path / "scored.jsonl", columns)
    wanted, out = tmp_path / "wanted.jsonl", tmp_path / "best.jsonl"

    def theirs(target: Path) -> None:
        peers.select(scored, target, top=TOP, by="predicted_log_loss", columns=list(columns))

    theirs(wanted)
    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: select(scored, out, Choice(top=TOP), overwrite=True),
        "python": lambda: theirs(out),
    }

    def check(_: object) -> None:
        rows = _lines(out)
        assert len(rows) == TOP
        assert rows == _lines(wanted)

    clock("select, 1,000 of 5,000 rows", peer, runs[peer], check, rounds=HOST_ROUNDS)


@pytest.fixture(scope="module")
def scorer(bundle: Bundle) -> Iterator[Scorer]:
    with Scorer.open(bundle, indicators=INDICATORS, device="cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def reference_rows(models: peers.Models, real_file: Path) -> list[dict[str, object]]:
    out = real_file.with_name("wanted.jsonl")
    peers.whole_job(models, real_file, out, peers.alone)
    return _lines(out)


@pytest.mark.parametrize("peer", ["ours", "transformers, one by one", "transformers, sorted batches"])
def test_whole_path(
    peer: str,
    scorer: Scorer,
    models: peers.Models,
    real_file: Path,
    reference_rows: list[dict[str, object]],
    clock: Clock,
) -> None:
    """A file of rows to a file of scored rows: perplexity, reward, knn_6, mtld and output_length.

    The peer is a script of transformers, lexicalrichness and scikit-learn over the same weights; its models are
    loaded before, as the scorer is opened before.
    """
    out = real_file.with_name("scored.jsonl")

    def check(_: object) -> None:
        rows = _lines(out)
        assert len(rows) == len(reference_rows)
        for found, wanted in zip(rows, reference_rows, strict=True):
            own = [name for name in wanted if name not in INDICATORS]
            assert [found[name] for name in own] == [wanted[name] for name in own]
            for name in INDICATORS:
                assert found[name] == pytest.approx(wanted[name], rel=WITHIN, abs=WITHIN), name
        out.unlink()

    clock(
        f"whole path, {len(reference_rows)} rows",
        peer,
        (lambda: _score(scorer, real_file, out))
        if peer == "ours"
        else (lambda: peers.whole_job(models, real_file, out, BATCHINGS[peer])),
        check,
        rounds=MODEL_ROUNDS,
    )


def _score(scorer: Scorer, source: Path, out: Path) -> None:
    with RunWriter(str(out), overwrite=True) as writer:
        rows = read_examples(source, on_reject=writer.reject)
        for row in scorer.score(rows, on_reject=writer.reject_example):
            writer.write(row)
        writer.finish({})


def _builder(bundle: Bundle, indicator: str) -> WindowBuilder:
    work = plan(bundle, None, [indicator])
    return WindowBuilder(work, bundle.roles[bundle.length_tokenizer].tokenizer)


def _window(bundle: Bundle, indicator: str, examples: list[Example]) -> Window:
    return _builder(bundle, indicator).build(examples, _no_reject)


def _batched(builder: WindowBuilder, examples: list[Example]) -> list[list[Batch]]:
    """The batches of each window of rows."""
    windows = []
    for begin in range(0, len(examples), WINDOW_ROWS):
        window = builder.build(examples[begin : begin + WINDOW_ROWS], _no_reject)
        windows.append(list(batches(window.streams[0].texts, budget_tokens=BUDGET)))
    return windows


def _conversations(windows: list[list[Batch]]) -> list[tuple[list[int], int]]:
    """Ids and the response's first position of each row, in input order, read back from the batches."""
    found: dict[tuple[int, int], tuple[list[int], int]] = {}
    for number, window in enumerate(windows):
        for batch in window:
            for place, member in enumerate(batch.members.tolist()):
                ids = batch.ids[place][batch.mask[place] > 0].tolist()
                scored = batch.scored[batch.scored[:, 0] == place, 1].tolist()
                assert scored == list(range(scored[0], len(ids) - 1))
                found[number, member] = ids, scored[0]
    return [found[row] for row in sorted(found)]


def _measuring(window: Window, device: Device) -> Callable[[], Measurements]:
    """One call batches a tokenized window and runs it through its graph, which is opened here."""
    sessions = {part.stream.role.graph: GraphSession(part.stream.role.graph, device) for part in window.streams}
    return lambda: measure(window, sessions, budget_tokens=BUDGET, statistics=Statistics(), report=lambda: None)


def _no_reject(example: Example, reason: str) -> None:
    raise AssertionError(f"{reason}: {example}")


def _lines(path: Path) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]
