from __future__ import annotations

import itertools
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import altered_bundle
import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

from instructmining import Example, Rule, ScoredRow, Scorer, Statistics, Turn
from instructmining.bundle import ROLES, RoleName
from instructmining.bundle.demo import demo_place
from instructmining.errors import BundleError, DeviceError, InstructMiningError, RowError, RuleError
from instructmining.inference.batching import Batch, Batching
from instructmining.inference.devices import cpu_threads
from instructmining.inference.sessions import Acceleration, GraphSession
from instructmining.knn.options import KnnOptions
from instructmining.types import SourceRow

ROW_COLUMNS = ["input_length", "output_length", "reward", "perplexity", "mtld", "ifd"]
WORDS = ["bread", "train", "green", "seven", "dough", "noon", "ferry", "yeast", "colour", "three"]
Outputs = dict[str, NDArray[np.float32]]


def varied(rows: int, seed: int = 0) -> list[Example]:
    """Examples of mixed length, no two alike; all of them fit the models of the small bundle but the embedding's."""
    rng = np.random.default_rng(seed)

    def text(longest: int) -> str:
        return " ".join(rng.choice(WORDS, size=rng.integers(2, longest)))

    return [Example.of(f"{number}: {text(12)}?", f"{text(30)}.") for number in range(rows)]


def scored(bundle: Path, examples: Sequence[Example], *indicators: str) -> list[ScoredRow]:
    with Scorer.open(bundle, indicators=indicators, device="cpu") as scorer:
        return list(scorer.score(examples))


def column(rows: Sequence[ScoredRow], name: str) -> NDArray[np.float64]:
    return np.array([row.columns[name] for row in rows], dtype=np.float64)


def session(bundle: Path, role: str) -> ort.InferenceSession:
    """The graph without our own session around it."""
    return ort.InferenceSession(bundle / role / "model.onnx", providers=["CPUExecutionProvider"])


def use_windows(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Few rows fill a window."""
    monkeypatch.setattr(Batching, "usual", lambda _, roles: Batching(rows, dict.fromkeys(roles, 512)))


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    use_windows(monkeypatch, 8)


@pytest.fixture
def counted_runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[str, ...], int]]:
    """The outputs and the scored positions of each run of a graph."""
    runs: list[tuple[tuple[str, ...], int]] = []
    original = GraphSession.run

    def run(self: GraphSession, batch: Batch, outputs: Sequence[str]) -> Outputs:
        runs.append((tuple(outputs), len(batch.scored)))
        return original(self, batch, outputs)

    monkeypatch.setattr(GraphSession, "run", run)
    return runs


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch, small_bundle: Path) -> Callable[[str], None]:
    """Makes one graph output not a number for every text with the word "poison"."""
    tokenizer = Tokenizer.from_file(str(small_bundle / "perplexity/tokenizer.json"))
    original = GraphSession.run

    def spoil(output: str) -> None:
        def run(self: GraphSession, batch: Batch, outputs: Sequence[str]) -> Outputs:
            values = {name: array.copy() for name, array in original(self, batch, outputs).items()}
            texts = [tokenizer.decode(ids.tolist(), skip_special_tokens=False) for ids in batch.ids]
            spoilt = np.array(["poison" in text for text in texts])
            if output in values:
                values[output][spoilt[batch.scored[:, 0]] if output == "nll" else spoilt] = np.nan
            return values

        monkeypatch.setattr(GraphSession, "run", run)

    return spoil


# Which columns


def test_rows_come_in_input_order_with_the_columns_asked_for(small_bundle: Path) -> None:
    examples = [Example.of(f"Say {word}.", word * count) for count, word in enumerate(["one ", "two ", "three "], 1)]
    with Scorer.open(small_bundle, indicators=["perplexity", "output_length"], device="cpu") as scorer:
        rows = list(scorer.score(examples))
    assert [row.example for row in rows] == examples
    assert [list(row.columns) for row in rows] == [["output_length", "perplexity"]] * 3


def test_an_unknown_indicator_is_named(small_bundle: Path) -> None:
    with pytest.raises(RuleError, match="no indicator 'fluency'"):
        Scorer.open(small_bundle, indicators=["fluency"], device="cpu")


def test_indicators_alone_give_no_prediction(small_bundle: Path) -> None:
    with Scorer.open(small_bundle, indicators=["mtld"], device="cpu") as scorer:
        assert (scorer.rule, scorer.columns) == (None, ("mtld",))
        assert [list(row.columns) for row in scorer.score(varied(2))] == [["mtld"]] * 2


def test_a_rule_with_indicators_gives_the_union_in_column_order_and_the_prediction_last(small_bundle: Path) -> None:
    with Scorer.open(small_bundle, rule="paper-v1", indicators=["ifd", "mtld", "reward"], device="cpu") as scorer:
        rows = list(scorer.score(varied(8)))
    expected = ("output_length", "reward", "mtld", "knn_6", "ifd", "predicted_log_loss")
    assert scorer.columns == expected
    assert [tuple(row.columns) for row in rows] == [expected] * 8


def test_neither_rule_nor_indicators_is_the_bundles_default_rule(small_bundle: Path) -> None:
    with Scorer.open(small_bundle, device="cpu") as scorer:
        assert scorer.rule == Rule.load("paper-v1")
        assert scorer.columns == ("output_length", "reward", "knn_6", "predicted_log_loss")


def test_no_default_rule_and_nothing_asked_for_is_an_error(small_bundle: Path, tmp_path: Path) -> None:
    path = altered_bundle.edit(altered_bundle.copy(small_bundle, tmp_path), lambda m: m.update(default_rule=None))
    with pytest.raises(RuleError, match="has no default rule; give a rule or indicators"):
        Scorer.open(path, device="cpu")


@pytest.mark.parametrize("nothing", ["", []])
def test_indicators_that_name_nothing_are_an_error(small_bundle: Path, nothing: str | list[str]) -> None:
    with pytest.raises(RuleError, match="no indicator was named; give at least one, or a rule"):
        Scorer.open(small_bundle, indicators=nothing, device="cpu")


def test_what_only_cuda_has_is_refused_on_a_cpu(small_bundle: Path) -> None:
    with pytest.raises(DeviceError, match="the graphs run on a CPU"):
        Scorer.open(small_bundle, device="cpu", acceleration=Acceleration(memory_bytes=1))


def test_a_closed_scorer_is_said(small_bundle: Path) -> None:
    with Scorer.open(small_bundle, indicators="mtld", device="cpu") as scorer:
        pass
    with pytest.raises(InstructMiningError, match="the scorer is closed: score inside its with block"):
        scorer.score(varied(1))


def demo_cached(folder: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTRUCTMINING_CACHE", str(folder))
    folder.mkdir()
    demo_place().symlink_to(bundle)


def test_without_a_bundle_the_cached_demo_bundle_is_taken(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo_cached(tmp_path / "cache", small_bundle, monkeypatch)
    with Scorer.open(indicators="mtld", device="cpu") as scorer:
        assert scorer.bundle.path == demo_place()


def test_without_a_bundle_and_with_nothing_cached_the_commands_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTRUCTMINING_CACHE", str(tmp_path))
    with pytest.raises(BundleError, match=r"instructmining export --preset demo -o demo-bundle.*score FILE -o OUT"):
        Scorer.open(indicators="mtld")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"bundle": 3}, BundleError, r"bundle is 3 \(int\), wanted the path of a bundle's folder"),
        ({"rule": 3}, RuleError, r"rule is 3 \(int\), wanted paper-v1, paper-v3, a JSON file or a Rule"),
        ({"indicators": 3}, RuleError, r"indicators: 3 \(int\), wanted names"),
        ({"indicators": ["mtld", None]}, RuleError, "indicators: None, wanted names"),
        ({"device": 0}, DeviceError, r"device is 0 \(int\), wanted text: give 'cuda:0'"),
        ({"device": None}, DeviceError, "device is None, wanted 'auto'"),
        ({"batches_at_once": 0}, DeviceError, r"batches_at_once is 0 \(int\), wanted a number of at least 1"),
        ({"batches_at_once": "2"}, DeviceError, r"batches_at_once is '2' \(str\)"),
        ({"batching": 512}, DeviceError, r"batching is 512 \(int\), wanted a Batching"),
        ({"acceleration": True}, DeviceError, r"acceleration is True \(bool\), wanted an Acceleration"),
        ({"knn": "approx"}, RuleError, r"knn is 'approx' \(str\), wanted a KnnOptions"),
    ],
)
def test_an_argument_of_a_wrong_type_is_named_with_what_was_found(
    small_bundle: Path, arguments: dict[str, object], error: type[InstructMiningError], message: str
) -> None:
    given = {"bundle": small_bundle, "indicators": "mtld", "device": "cpu"} | arguments
    with pytest.raises(error, match=message):
        Scorer.open(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("indicators", "searches", "size", "precisions"),
    [("mtld", False, None, set()), ("reward", False, None, {"fp32"}), ("mtld,knn_6", True, 32, {"fp32"})],
)
def test_a_scorer_says_what_its_run_will_take(
    small_bundle: Path, indicators: str, searches: bool, size: int | None, precisions: set[str]
) -> None:
    with Scorer.open(small_bundle, indicators=indicators, device="cpu") as scorer:
        assert (scorer.searches_neighbours, scorer.embedding_size, scorer.precisions) == (searches, size, precisions)
        assert (scorer.memory_splits, scorer.texts_retried) == (0, 0)
        assert scorer.runtime_version == ort.__version__


def test_the_prediction_is_the_rule_applied_to_the_rows_own_columns(small_bundle: Path) -> None:
    rule = Rule("mine", 0.5, {"reward": -0.25, "output_length": 0.01, "knn_6": 2.0})
    with Scorer.open(small_bundle, rule=rule, device="cpu") as scorer:
        rows = list(scorer.score(varied(9)))
    columns = {name: column(rows, name) for name in rule.terms}
    by_hand = 0.5 - 0.25 * columns["reward"] + 0.01 * columns["output_length"] + 2.0 * columns["knn_6"]
    np.testing.assert_allclose(column(rows, "predicted_log_loss"), by_hand, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(column(rows, "predicted_log_loss"), rule.predict(columns))


def test_no_examples_give_no_rows(small_bundle: Path) -> None:
    with Scorer.open(small_bundle, rule="paper-v1", indicators=ROW_COLUMNS, device="cpu") as scorer:
        assert list(scorer.score([])) == []


# Order and batches


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("indicators", [["output_length", "reward"], ["output_length", "knn_6"]])
def test_rows_of_many_windows_come_in_input_order(small_bundle: Path, indicators: list[str]) -> None:
    examples = varied(37)
    rows = scored(small_bundle, examples, *indicators)
    assert [row.example for row in rows] == examples
    tokenizer = Tokenizer.from_file(str(small_bundle / "perplexity/tokenizer.json"))
    assert [row.columns["output_length"] for row in rows] == [
        len(tokenizer.encode(example.response_texts[0]).ids) for example in examples
    ]


def test_the_window_changes_no_value(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = varied(30)
    indicators = [*ROW_COLUMNS, "knn_6"]
    whole = scored(small_bundle, examples, *indicators)
    use_windows(monkeypatch, 4)
    parted = scored(small_bundle, examples, *indicators)
    for name in indicators:
        np.testing.assert_allclose(column(parted, name), column(whole, name), rtol=1e-5, atol=1e-5)


def test_a_row_alone_has_the_values_that_it_has_in_a_batch(small_bundle: Path) -> None:
    examples = varied(40)
    with Scorer.open(small_bundle, indicators=ROW_COLUMNS, device="cpu") as scorer:
        scorer.batching = Batching.usual("cpu", ROLES, max_batch_tokens=4096)
        together = list(scorer.score(examples))
        alone = [row for example in examples for row in scorer.score([example])]
    for name in ("perplexity", "ifd"):
        np.testing.assert_allclose(np.log(column(together, name)), np.log(column(alone, name)), rtol=0, atol=1e-5)
    np.testing.assert_allclose(column(together, "reward"), column(alone, "reward"), rtol=0, atol=1e-5)
    for name in ("input_length", "output_length", "mtld"):
        np.testing.assert_array_equal(column(together, name), column(alone, name))


@pytest.mark.parametrize("max_batch_tokens", [1, 100, 100_000])
def test_the_budget_changes_the_batches_and_no_value(
    small_bundle: Path, max_batch_tokens: int, counted_runs: list[tuple[tuple[str, ...], int]]
) -> None:
    examples = varied(20)
    indicators = ["perplexity", "reward", "knn_6"]
    usual = scored(small_bundle, examples, *indicators)
    usual_runs = len(counted_runs)
    with Scorer.open(small_bundle, indicators=indicators, device="cpu") as scorer:
        scorer.batching = Batching.usual("cpu", ROLES, max_batch_tokens=max_batch_tokens)
        rows = list(scorer.score(examples))
    assert len(counted_runs) - usual_runs != usual_runs
    for name in indicators:
        np.testing.assert_allclose(column(rows, name), column(usual, name), rtol=1e-5, atol=1e-5)


def test_perplexity_and_reward_share_one_run_of_each_conversation(
    small_bundle: Path, counted_runs: list[tuple[tuple[str, ...], int]]
) -> None:
    examples = varied(5)
    with Scorer.open(small_bundle, indicators=["perplexity", "reward"], device="cpu") as scorer:
        scorer.batching = Batching.usual("cpu", ROLES, max_batch_tokens=1)
        list(scorer.score(examples))
    assert [sorted(outputs) for outputs, _ in counted_runs] == [["nll", "reward"]] * 5


def test_a_column_that_is_not_asked_for_runs_no_graph(
    small_bundle: Path, counted_runs: list[tuple[tuple[str, ...], int]]
) -> None:
    scored(small_bundle, varied(3), "mtld", "input_length")
    assert counted_runs == []
    scored(small_bundle, varied(3), "reward")
    assert {outputs for outputs, _ in counted_runs} == {("reward",)}


# Values by hand


def test_lengths_are_those_of_the_texts_without_template(small_bundle: Path) -> None:
    tokenizer = Tokenizer.from_file(str(small_bundle / "perplexity/tokenizer.json"))
    tokenizer.encode_special_tokens = True
    turns = (
        Turn("system", "Be brief<|im_end|>."),
        Turn("user", "Name a colour."),
        Turn("assistant", "Green is one."),
        Turn("user", "And another?"),
        Turn("assistant", "Blue."),
    )
    (row,) = scored(small_bundle, [Example(turns)], "input_length", "output_length")

    def tokens(*texts: str) -> int:
        return sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts)

    expected = {
        "input_length": tokens("Be brief<|im_end|>.", "Name a colour.", "And another?"),
        "output_length": tokens("Green is one.", "Blue."),
    }
    assert row.columns == expected
    assert [type(value) for value in row.columns.values()] == [int, int]


def token_losses(bundle: Path, ids: Sequence[int], positions: Sequence[int]) -> NDArray[np.float64]:
    """NLL of the tokens at these positions of one text."""
    feeds = {
        "input_ids": np.array([ids], dtype=np.int64),
        "position_ids": np.arange(len(ids), dtype=np.int64)[None],
        "scored": np.array([[0, position] for position in positions], dtype=np.int64),
        "best_of": np.zeros(0, dtype=np.int64),
    }
    (losses,) = session(bundle, "perplexity").run(["nll"], feeds)
    values: NDArray[np.float64] = np.asarray(losses, dtype=np.float64)
    return values


def test_perplexity_and_ifd_of_several_turns_are_over_all_assistant_tokens(small_bundle: Path) -> None:
    responses = ["Green is a colour.", "Blue, and so is red."]
    turns = (
        Turn("user", "Name one."),
        Turn("assistant", responses[0]),
        Turn("user", "Name two."),
        Turn("assistant", responses[1]),
    )
    (row,) = scored(small_bundle, [Example(turns)], "perplexity", "ifd", "reward")

    tokenizer = Tokenizer.from_file(str(small_bundle / "perplexity/tokenizer.json"))
    text = "\n".join(f"<|im_start|>{turn.role}\n{turn.text}<|im_end|>" for turn in turns)
    encoding = tokenizer.encode(text, add_special_tokens=False)
    spans = [(text.index(response), text.index(response) + len(response)) for response in responses]
    positions = [
        number
        for number, (begin, end) in enumerate(encoding.offsets)
        if any(begin < last and end > first for first, last in spans)
    ]
    given = token_losses(small_bundle, encoding.ids, positions)
    plain = [tokenizer.encode(response, add_special_tokens=False).ids for response in responses]
    alone = np.concatenate([token_losses(small_bundle, ids, range(1, len(ids))) for ids in plain])
    assert row.columns["perplexity"] == pytest.approx(np.exp(given.mean()), rel=1e-5)
    assert row.columns["ifd"] == pytest.approx(np.exp(given.mean() - alone.mean()), rel=2e-5)
    feeds = {
        "input_ids": np.array([encoding.ids], dtype=np.int64),
        "position_ids": np.arange(len(encoding.ids), dtype=np.int64)[None],
        "scored": np.zeros((0, 2), dtype=np.int64),
        "best_of": np.zeros(0, dtype=np.int64),
    }
    (reward,) = session(small_bundle, "perplexity").run(["reward"], feeds)
    assert row.columns["reward"] == pytest.approx(float(reward[0]), abs=1e-5)


@pytest.mark.usefixtures("small_windows")
def test_knn_6_is_that_of_brute_force_over_embeddings_of_each_text_alone(small_bundle: Path) -> None:
    examples = varied(30)
    tokenizer = Tokenizer.from_file(str(small_bundle / "embedding/tokenizer.json"))
    graph = session(small_bundle, "embedding")
    vectors = []
    for example in examples:
        text = "\n".join(turn.text for turn in example.turns)
        ids = tokenizer.encode(f"[CLS]{text}", add_special_tokens=False).ids[:63]
        ids.append(tokenizer.token_to_id("[SEP]"))
        array = np.array([ids], dtype=np.int64)
        vectors.append(graph.run(["embedding"], {"input_ids": array, "attention_mask": np.ones_like(array)})[0][0])
    points = np.array(vectors, dtype=np.float64)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    rows = scored(small_bundle, examples, "knn_6")
    np.testing.assert_allclose(column(rows, "knn_6"), np.sort(distances, axis=1)[:, 5], rtol=0, atol=1e-5)


# What is undefined


def test_six_rows_have_no_sixth_neighbour_and_no_prediction_and_say_so(small_bundle: Path) -> None:
    with Scorer.open(small_bundle, rule="paper-v1", device="cpu") as scorer:
        rows = list(scorer.score(varied(6)))
    for row in rows:
        assert row.columns["knn_6"] is row.columns["predicted_log_loss"] is None
        assert row.columns["reward"] is not None
        assert row.notes == {
            "knn_6": "6 rows in the run; the distance to neighbour 6 needs 7",
            "predicted_log_loss": "undefined: knn_6",
        }


def test_seven_rows_have_a_sixth_neighbour(small_bundle: Path) -> None:
    with Scorer.open(small_bundle, rule="paper-v1", device="cpu") as scorer:
        rows = list(scorer.score(varied(7)))
    assert [row.notes for row in rows] == [{}] * 7
    assert np.isfinite(column(rows, "predicted_log_loss")).all()


def test_a_response_alone_stands_behind_the_token_that_begins_a_text(small_bundle: Path, tmp_path: Path) -> None:
    def change(manifest: altered_bundle.Manifest) -> None:
        manifest["roles"]["perplexity"]["bos"] = "<|endoftext|>"

    bundle = altered_bundle.edit(altered_bundle.copy(small_bundle, tmp_path), change)
    examples = [Example.of("Name a colour.", "Green is a colour.")]
    (row,), (plain,) = (scored(path, examples, "perplexity", "ifd") for path in (bundle, small_bundle))
    tokenizer = Tokenizer.from_file(str(bundle / "perplexity/tokenizer.json"))
    ids = tokenizer.encode("Green is a colour.", add_special_tokens=False).ids
    start = tokenizer.token_to_id("<|endoftext|>")
    alone = token_losses(bundle, [start, *ids], range(2, len(ids) + 1))
    assert row.columns["perplexity"] == plain.columns["perplexity"]
    assert row.columns["ifd"] == pytest.approx(float(row.columns["perplexity"] or 0) / np.exp(alone.mean()), rel=2e-5)
    assert row.columns["ifd"] != pytest.approx(plain.columns["ifd"], rel=1e-3)


def test_a_response_of_one_token_has_a_perplexity_and_no_ifd(small_bundle: Path) -> None:
    first, second = scored(
        small_bundle, [Example.of("A letter?", "x"), Example.of("A word?", "noon")], "perplexity", "ifd"
    )
    assert first.columns["perplexity"] is not None
    assert first.columns["ifd"] is None
    assert first.notes == {"ifd": "the response is a single token"}
    assert second.columns["ifd"] is not None
    assert second.notes == {}


@pytest.mark.parametrize("turns", [(Turn("user", "Hello?"),), (Turn("user", "Hello?"), Turn("assistant", " \n"))])
def test_an_example_without_a_response_is_rejected(small_bundle: Path, turns: tuple[Turn, ...]) -> None:
    rejected: list[str] = []
    with Scorer.open(small_bundle, indicators="mtld", device="cpu") as scorer:
        rows = list(scorer.score([Example(turns), *varied(1)], on_reject=lambda reject: rejected.append(reject.reason)))
    assert len(rows) == 1
    assert rejected == ["the response is empty"]


def test_indicators_are_taken_as_a_list_as_text_or_all(small_bundle: Path) -> None:
    with Scorer.open(small_bundle, indicators="mtld, ifd", device="cpu") as scorer:
        assert scorer.columns == ("mtld", "ifd")
    with Scorer.open(small_bundle, indicators="all", device="cpu") as scorer:
        assert len(scorer.columns) == 7


def test_a_prediction_names_every_column_that_it_lacks(small_bundle: Path) -> None:
    rule = Rule("mine", 1.0, {"mtld": 1.0, "ifd": 1.0, "output_length": 1.0})
    with Scorer.open(small_bundle, rule=rule, device="cpu") as scorer:
        (row,) = scorer.score([Example.of("A sign?", "!")])
    assert row.columns["predicted_log_loss"] is None
    assert row.notes["predicted_log_loss"] == "undefined: mtld, ifd"


# Rejected rows


@pytest.fixture
def no_tools(small_bundle: Path, tmp_path: Path) -> Path:
    """A bundle whose models know no turn of role tool."""

    def change(manifest: altered_bundle.Manifest) -> None:
        for role in ("perplexity", "reward"):
            template = manifest["roles"][role]["template"]
            template["gaps"] = {name: gap for name, gap in template["gaps"].items() if "tool" not in name}

    return altered_bundle.edit(altered_bundle.copy(small_bundle, tmp_path), change)


WITH_TOOL = Example((Turn("user", "a"), Turn("tool", "b"), Turn("assistant", "c")))


@pytest.mark.usefixtures("small_windows")
def test_a_row_that_the_template_cannot_hold_is_rejected_and_the_others_are_scored(no_tools: Path) -> None:
    rejected: list[tuple[Example | None, str]] = []
    statistics = Statistics()
    examples = varied(20)
    with Scorer.open(no_tools, rule="paper-v1", device="cpu") as scorer:
        rows = list(
            scorer.score(
                [*examples[:9], WITH_TOOL, *examples[9:]],
                on_reject=lambda reject: rejected.append((reject.example, reject.reason)),
                statistics=statistics,
            )
        )
    assert [row.example for row in rows] == examples
    assert rejected == [(WITH_TOOL, "the model's template has no place for a turn of role 'tool' after 'user'")]
    assert (statistics.rows_taken, statistics.rows_scored, statistics.rows_rejected) == (21, 20, 1)
    with Scorer.open(no_tools, rule="paper-v1", device="cpu") as scorer:
        clean = list(scorer.score(examples))
    np.testing.assert_allclose(column(rows, "knn_6"), column(clean, "knn_6"), atol=1e-6)


@pytest.mark.usefixtures("small_windows")
def test_windows_of_nothing_but_rejects_give_no_rows(no_tools: Path) -> None:
    rejected: list[Example | None] = []
    with Scorer.open(no_tools, rule="paper-v1", indicators=ROW_COLUMNS, device="cpu") as scorer:
        rows = list(scorer.score([WITH_TOOL] * 17, on_reject=lambda reject: rejected.append(reject.example)))
    assert rows == []
    assert rejected == [WITH_TOOL] * 17


def test_a_row_that_cannot_be_scored_is_an_error_where_nobody_takes_it(no_tools: Path) -> None:
    source = SourceRow("rows.jsonl", 12, 340, b"{}", {})
    with (
        Scorer.open(no_tools, indicators=["perplexity"], device="cpu") as scorer,
        pytest.raises(RowError, match=r"rows\.jsonl, line 12: .*no place for a turn of role 'tool'"),
    ):
        list(scorer.score([Example(WITH_TOOL.turns, source)]))


def test_a_row_that_no_template_has_to_hold_is_scored(no_tools: Path) -> None:
    (row,) = scored(no_tools, [WITH_TOOL], "mtld")
    assert row.columns["mtld"] == 1.0


@pytest.mark.parametrize(
    ("output", "columns"),
    [
        ("nll", ["perplexity", "ifd"]),
        ("reward", ["reward"]),
        ("embedding", ["knn_6"]),
        ("embedding", ["knn_6", "reward", "perplexity"]),
    ],
)
@pytest.mark.usefixtures("small_windows")
def test_a_row_with_a_model_output_that_is_no_number_is_rejected(
    small_bundle: Path, poison: Callable[[str], None], output: str, columns: list[str]
) -> None:
    examples = varied(20)
    spoilt = Example.of("What is this?", "A poison, it is said.")
    clean = scored(small_bundle, examples, *columns)
    poison(output)
    rejected: list[tuple[Example | None, str]] = []
    statistics = Statistics()
    with Scorer.open(small_bundle, indicators=columns, device="cpu") as scorer:
        rows = list(
            scorer.score(
                [*examples[:3], spoilt, *examples[3:]],
                on_reject=lambda reject: rejected.append((reject.example, reject.reason)),
                statistics=statistics,
            )
        )
    assert rejected == [(spoilt, "a model output is not a finite number")]
    assert [row.example for row in rows] == examples
    for name in columns:
        np.testing.assert_allclose(column(rows, name), column(clean, name), rtol=1e-5, atol=1e-5)
    assert (statistics.rows_taken, statistics.rows_scored, statistics.rows_rejected) == (21, 20, 1)


def test_a_model_output_that_is_no_number_is_an_error_where_nobody_takes_it(
    small_bundle: Path, poison: Callable[[str], None]
) -> None:
    poison("reward")
    with pytest.raises(RowError, match="not a finite number"):
        scored(small_bundle, [Example.of("What is this?", "poison")], "reward")


# Truncation and counts


def test_truncated_names_the_roles_that_saw_less_and_statistics_count_them(small_bundle: Path) -> None:
    short = Example.of("Name a colour.", "Green.")
    middle = Example.of("Count.", " ".join(["seven"] * 80))
    long_response = Example.of("Count.", "x" * 2000)
    long_prompt = Example.of("x" * 2000, "Green.")
    statistics = Statistics()
    with Scorer.open(small_bundle, rule="paper-v1", indicators=["perplexity", "ifd"], device="cpu") as scorer:
        rows = list(scorer.score([short, middle, long_response, long_prompt], statistics=statistics))
    assert [sorted(row.truncated) for row in rows] == [
        [],
        ["embedding"],
        ["embedding", "perplexity", "reward"],
        ["embedding", "perplexity", "reward"],
    ]
    assert statistics.truncated == Counter(embedding=3, perplexity=2, reward=2)


def test_only_roles_that_were_asked_for_are_said_to_see_less(small_bundle: Path) -> None:
    (row,) = scored(small_bundle, [Example.of("Count.", "x" * 2000)], "reward", "output_length")
    assert row.truncated == ("reward",)
    assert row.columns["output_length"] == 2000


def test_statistics_add_up(small_bundle: Path) -> None:
    examples = varied(25)
    statistics = Statistics()
    seen: list[float] = []
    with Scorer.open(small_bundle, indicators=["perplexity", "reward", "knn_6", "ifd"], device="cpu") as scorer:
        list(scorer.score(examples, statistics=statistics, on_progress=lambda now: seen.append(now.rows_computed)))
    tokenizer = Tokenizer.from_file(str(small_bundle / "perplexity/tokenizer.json"))

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    conversations = sum(
        count(
            f"<|im_start|>user\n{e.prompt_texts[0]}<|im_end|>\n<|im_start|>assistant\n{e.response_texts[0]}<|im_end|>"
        )
        for e in examples
    )
    responses = sum(count(example.response_texts[0]) for example in examples)
    documents = sum(min(64, 2 + count(f"{e.prompt_texts[0]}\n{e.response_texts[0]}")) for e in examples)
    assert statistics.tokens == Counter(
        {"reward+perplexity": conversations, "perplexity": responses, "embedding": documents}
    )
    assert all(statistics.padded[name] >= tokens for name, tokens in statistics.tokens.items())
    assert statistics.padding_share == pytest.approx(1 - statistics.tokens.total() / statistics.padded.total())
    assert (statistics.rows_taken, statistics.rows_scored, statistics.rows_rejected) == (25, 25, 0)
    assert statistics.neighbours_done == 25
    assert seen == sorted(seen)
    assert seen[-1] == statistics.rows_computed == 25
    assert {"read", "tokenize", "indicators", "neighbours"} < set(statistics.seconds)
    assert min(statistics.seconds.values()) >= 0


def test_nothing_computed_has_no_padding() -> None:
    assert Statistics().padding_share == 0.0


# Threads and early ends


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("indicators", [["perplexity", "reward", "ifd"], ["knn_6", "output_length"]])
def test_one_scorer_shared_by_four_threads_gives_the_rows_of_one(small_bundle: Path, indicators: list[str]) -> None:
    parts = [varied(30, seed) for seed in range(4)]
    with Scorer.open(small_bundle, indicators=indicators, device="cpu") as scorer:
        expected = [list(scorer.score(part)) for part in parts]
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda part: list(scorer.score(part)), parts))
    assert found == expected


@pytest.mark.usefixtures("small_windows")
def test_rows_do_not_depend_on_how_many_batches_are_computed_at_once(small_bundle: Path) -> None:
    found = []
    for at_once in (1, 2):
        opened = Scorer.open(
            small_bundle, indicators=["perplexity", "reward", "knn_6"], device="cpu", batches_at_once=at_once
        )
        with opened as scorer:
            assert scorer.device.batches_at_once == min(at_once, cpu_threads())
            found.append(list(scorer.score(varied(60, 0))))
    assert found[0] == found[1]


@pytest.mark.usefixtures("small_windows")
def test_closing_early_takes_no_more_and_leaves_no_thread(
    small_bundle: Path, new_threads: Callable[[], list[str]]
) -> None:
    taken = 0

    def endless() -> Iterator[Example]:
        nonlocal taken
        for number in itertools.count():
            taken += 1
            yield Example.of(f"Say {number}.", "It is said.")

    with Scorer.open(small_bundle, indicators=["perplexity"], device="cpu", batches_at_once=1) as scorer:
        rows = iter(scorer.score(endless()))
        first = next(rows)
        rows.close()  # type: ignore[attr-defined]
        assert new_threads() == []
        assert next(rows, None) is None
    assert first.example.prompt_texts == ["Say 0."]
    assert taken <= 3 * 8


def test_closing_early_behind_the_corpus_pass_removes_what_lay_on_disk(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Scorer.open(small_bundle, indicators=["knn_6"], device="cpu") as scorer:
        rows = iter(scorer.score(varied(8)))
        next(rows)
        assert len(list(tmp_path.glob("instructmining-*"))) == 1
        rows.close()  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_source_reaches_the_caller(small_bundle: Path, new_threads: Callable[[], list[str]]) -> None:
    def broken() -> Iterator[Example]:
        yield from varied(3)
        raise OSError("the disk went away")

    with (
        Scorer.open(small_bundle, indicators=["perplexity"], device="cpu") as scorer,
        pytest.raises(OSError, match="the disk went away"),
    ):
        list(scorer.score(broken()))
    assert new_threads() == []


# Roles beside the columns


def test_a_model_is_open_that_no_column_needs(small_bundle: Path) -> None:
    with Scorer.open(small_bundle, indicators=["knn_6"], device="cpu") as scorer:
        (expected,) = scorer.embeddings(varied(8))
    with Scorer.open(small_bundle, roles=["embedding"], device="cpu") as scorer:
        assert (scorer.columns, scorer.roles, scorer.embedding_size) == ((), {"embedding"}, 32)
        (found,) = scorer.embeddings(varied(8))
        with pytest.raises(RuleError, match="computes no column; open it with indicators or a rule"):
            list(scorer.score(varied(8)))
    np.testing.assert_array_equal(found, expected)


def test_roles_beside_columns_change_none_of_their_values(small_bundle: Path) -> None:
    rows = [Example.of("Name a colour.", "Green is a colour. " * 400), *varied(5)]
    with Scorer.open(small_bundle, indicators="perplexity,output_length", device="cpu") as scorer:
        expected = list(scorer.score(rows))
    with Scorer.open(
        small_bundle, indicators="perplexity,output_length", roles="reward, embedding", device="cpu"
    ) as scorer:
        assert scorer.roles == {"perplexity", "reward", "embedding"}
        found = list(scorer.score(rows))
    assert [row.columns for row in found] == [row.columns for row in expected]
    assert found[0].truncated == expected[0].truncated == ("perplexity",)


@pytest.mark.parametrize(
    ("roles", "error", "said"),
    [
        ("rewrd", RuleError, "no role 'rewrd'; did you mean 'reward'?"),
        (["unieval"], BundleError, "has no role 'unieval', which the option roles (--roles) needs"),
    ],
)
def test_a_role_that_cannot_be_opened_is_an_error(
    small_bundle: Path, roles: str | list[RoleName], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=re.escape(said)):
        Scorer.open(small_bundle, roles=roles, device="cpu")


# What must be said


def test_another_reward_model_than_the_rules_is_said(small_bundle: Path) -> None:
    with Scorer.open(small_bundle, rule="paper-v1", device="cpu") as scorer:
        caution = scorer.caution
    assert caution is not None
    assert "OpenAssistant/reward-model-deberta-v3-large-v2" in caution
    assert "this bundle has tests/reward: the predicted losses are not the rule's" in caution


def test_a_reward_model_of_a_folder_is_said_to_be_perhaps_another(small_bundle: Path, tmp_path: Path) -> None:
    def change(manifest: altered_bundle.Manifest) -> None:
        manifest["roles"]["reward"]["source"] = {"id": "my-model", "revision": "local"}

    bundle = altered_bundle.edit(altered_bundle.copy(small_bundle, tmp_path), change)
    with Scorer.open(bundle, rule="paper-v1", device="cpu") as scorer:
        assert scorer.caution is not None
        assert "comes from a folder 'my-model': if it is not that model" in scorer.caution


@pytest.mark.parametrize(
    "rule",
    [
        Rule("same", 0.0, {"reward": 1.0}, reward_model="tests/reward"),
        Rule("unnamed", 0.0, {"reward": 1.0}),
        Rule("without", 0.0, {"mtld": 1.0}, reward_model="another/model"),
    ],
    ids=lambda rule: rule.id,
)
def test_nothing_is_said_where_the_reward_model_is_the_rules_or_plays_no_part(small_bundle: Path, rule: Rule) -> None:
    with Scorer.open(small_bundle, rule=rule, device="cpu") as scorer:
        assert scorer.caution is None


def test_nothing_is_said_where_there_is_no_rule(small_bundle: Path) -> None:
    with Scorer.open(small_bundle, indicators=["reward"], device="cpu") as scorer:
        assert scorer.caution is None


# Neighbours of another file


def test_rows_of_another_file_are_the_neighbours_and_its_bad_ones_are_left_out(
    small_bundle: Path, write_rows: Callable[..., Path]
) -> None:
    examples = varied(12)
    texts = [(example.turns[0].text, example.turns[1].text) for example in examples]
    others = write_rows(
        *({"prompt": prompt, "response": response} for prompt, response in texts[:8]),
        {"prompt": "has no response", "response": " "},
        name="others.jsonl",
    )
    counts = Statistics()
    knn = KnnOptions(against=str(others))
    with Scorer.open(small_bundle, indicators="knn_1", device="cpu", knn=knn) as scorer:
        rows = list(scorer.score(examples, statistics=counts))
    found = column(rows, "knn_1")
    np.testing.assert_allclose(found[:8], 0, atol=1e-3)  # each is there itself
    assert (found[8:] > 1e-3).all()
    assert (counts.others, counts.rows_scored) == (8, 12)
