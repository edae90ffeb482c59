from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import spearmanr

from instructmining.errors import BundleError
from instructmining.inference.batching import Batch, batches
from instructmining.inference.devices import Device
from instructmining.inference.references import BOUNDS, Agreement, References, agreement, agreements
from instructmining.inference.sessions import GraphSession
from instructmining.tokenizing.truncation import Tokens

CPU = Device("cpu", threads=1)
LENGTHS = (23, 5, 40, 11, 2)


def texts(scored: bool = True) -> list[Tokens]:
    rng = np.random.default_rng(11)
    return [
        Tokens(rng.integers(5, 300, size=length), np.arange(1, length if scored else 1, dtype=np.int64))
        for length in LENGTHS
    ]


def own_values(session: GraphSession, output: str, texts: Sequence[Tokens]) -> list[NDArray[np.float32]]:
    """What the graph itself gives for each text alone."""
    single = [next(batches([text], max_batch_tokens=1)) for text in texts]
    return [session.run(batch, (output,))[output].ravel() for batch in single]


@pytest.fixture(scope="module")
def decoder(small_bundle: Path) -> GraphSession:
    return GraphSession(small_bundle / "perplexity/model.onnx", CPU)


@pytest.fixture(scope="module")
def encoder(small_bundle: Path) -> GraphSession:
    return GraphSession(small_bundle / "embedding/model.onnx", CPU)


@pytest.fixture(scope="module")
def nll(decoder: GraphSession) -> References:
    return References("nll", texts(), own_values(decoder, "nll", texts()))


@pytest.fixture(scope="module")
def reward(decoder: GraphSession) -> References:
    return References("reward", texts(), own_values(decoder, "reward", texts()))


@pytest.fixture(scope="module")
def embedding(encoder: GraphSession) -> References:
    return References("embedding", texts(scored=False), own_values(encoder, "embedding", texts(scored=False)))


def with_value(references: References, number: int, value: NDArray[np.float32]) -> References:
    values = [value if at == number else kept for at, kept in enumerate(references.values)]
    return replace(references, values=values)


class Changed:
    """A session whose values are changed before they are seen."""

    def __init__(self, session: GraphSession, *, rows_over: int = 0, row: int = 0, by: float = 0.0) -> None:
        self._session, self._rows_over, self._row, self._by = session, rows_over, row, by

    def run(self, batch: Batch, outputs: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The values with ``by`` added to one row's where a batch has more than ``rows_over`` rows."""
        values = {name: array.copy() for name, array in self._session.run(batch, outputs).items()}
        if len(batch.members) > self._rows_over:
            for name, array in values.items():
                array[batch.scored[:, 0] == self._row if name == "nll" else self._row] += self._by
        return values


class Flat:
    """A session that gives every text one reward."""

    def run(self, batch: Batch, outputs: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        return {name: np.ones(len(batch.members), dtype=np.float32) for name in outputs}


def changed(session: GraphSession, *, rows_over: int = 0, row: int = 0, by: float = 0.0) -> GraphSession:
    return cast(GraphSession, Changed(session, rows_over=rows_over, row=row, by=by))


# On disk


def equal(one: References, other: References) -> bool:
    arrays = [
        [array for text in kept.texts for array in (text.ids, text.scored)] + kept.values for kept in (one, other)
    ]
    return one.output == other.output and all(
        a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(*arrays, strict=True)
    )


def test_what_was_saved_is_loaded(tmp_path: Path, nll: References, embedding: References) -> None:
    for references in (nll, embedding):
        references.save(tmp_path / "references.json")
        assert equal(References.load(tmp_path / "references.json"), references)


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_any_float32_comes_back_to_the_bit(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    path = tmp_path_factory.mktemp("references") / "references.json"
    text = Tokens(np.arange(6, dtype=np.int64), np.arange(1, len(values) + 1, dtype=np.int64))
    references = References("nll", [text], [np.array(values, dtype=np.float32)])
    references.save(path)
    assert equal(References.load(path), references)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"output": "nll"}',
        '{"output": "nll", "rows": [{"ids": [1]}]}',
        '{"output": "nll", "rows": [{"ids": ["a"], "scored": [], "values": []}]}',
        '{"output": "nll", "rows": 3}',
    ],
)
def test_a_file_of_another_kind_is_a_bundle_error_that_names_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "references.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(BundleError, match=r"references\.json: not a file of reference values"):
        References.load(path)


def test_a_missing_file_is_a_bundle_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"references\.json: not a file of reference values"):
        References.load(tmp_path / "references.json")


# Agreement


def test_a_graph_agrees_with_its_own_values(
    decoder: GraphSession, encoder: GraphSession, nll: References, reward: References, embedding: References
) -> None:
    of_tokens = agreement(nll, decoder)
    assert of_tokens.rows == len(LENGTHS)
    assert of_tokens.token_error is not None
    assert of_tokens.token_error <= 1e-4
    for found in (of_tokens, agreement(reward, decoder), agreement(embedding, encoder)):
        assert 0 <= abs(found.row_error) <= 1e-5
        assert 0 <= abs(found.batch_difference) <= 1e-5


def test_only_nll_has_an_error_of_tokens(
    decoder: GraphSession, encoder: GraphSession, reward: References, embedding: References
) -> None:
    assert agreement(reward, decoder).token_error is None
    assert agreement(embedding, encoder).token_error is None


@pytest.mark.parametrize("number", range(len(LENGTHS)))
def test_one_changed_token_shows_in_the_token_error_and_in_its_rows_mean(
    decoder: GraphSession, nll: References, number: int
) -> None:
    value = nll.values[number].copy()
    value[-1] += 0.5
    found = agreement(with_value(nll, number, value), decoder)
    assert found.token_error == pytest.approx(0.5, abs=1e-4)
    assert found.row_error == pytest.approx(0.5 / len(value), abs=1e-4)
    assert found.batch_difference <= 1e-5


def test_errors_of_tokens_that_cancel_in_the_mean_show(decoder: GraphSession, nll: References) -> None:
    value = nll.values[0].copy()
    value[0] += 0.5
    value[1] -= 0.5
    found = agreement(with_value(nll, 0, value), decoder)
    assert found.row_error <= 1e-4
    assert found.token_error == pytest.approx(0.5, abs=1e-4)


def test_a_changed_reward_shows(decoder: GraphSession, reward: References) -> None:
    found = agreement(with_value(reward, 3, reward.values[3] - np.float32(0.25)), decoder)
    assert found.row_error == pytest.approx(0.25, abs=1e-4)


def test_a_changed_direction_shows_as_one_less_the_cosine(encoder: GraphSession, embedding: References) -> None:
    value = embedding.values[2].copy()
    across = np.zeros_like(value)
    across[:2] = value[1], -value[0]
    turned = value + np.tan(np.radians(10)) * across / np.linalg.norm(across)
    found = agreement(with_value(embedding, 2, turned.astype(np.float32)), encoder)
    assert found.row_error == pytest.approx(1 - np.cos(np.radians(10)), abs=1e-5)


def test_a_value_that_depends_on_the_batch_shows_apart_from_the_errors(
    decoder: GraphSession, reward: References
) -> None:
    found = agreement(reward, changed(decoder, rows_over=1, row=1, by=0.125))
    assert found.batch_difference == pytest.approx(0.125, abs=1e-4)
    assert found.row_error == pytest.approx(0.125, abs=1e-4)
    everywhere = agreement(reward, changed(decoder, row=0, by=0.125))
    assert everywhere.row_error == pytest.approx(0.125, abs=1e-4)


@pytest.mark.parametrize("row", [0, 1, len(LENGTHS) - 1])
def test_a_value_that_is_no_number_is_never_taken_for_agreement(
    decoder: GraphSession, encoder: GraphSession, nll: References, reward: References, embedding: References, row: int
) -> None:
    for references, session in ((nll, decoder), (reward, decoder), (embedding, encoder)):
        found = agreement(references, changed(session, rows_over=1, row=row, by=float("nan")))
        assert not found.row_error <= 1
        assert not found.batch_difference <= 1
        assert references is not nll or not (found.token_error or 0) <= 1


def test_references_without_rows_are_no_agreement(tmp_path: Path, decoder: GraphSession) -> None:
    path = tmp_path / "references.json"
    References("nll", [], []).save(path)
    with pytest.raises(BundleError, match="reference values"):
        agreement(References.load(path), decoder)


def test_the_figures_are_in_the_manifest_where_there_are_any() -> None:
    plain = {"rows": 3, "row_error": 0.5, "batch_difference": 0.25, "mean_error": 0.125, "rank_correlation": 0.75}
    assert Agreement(3, 0.5, None, 0.25, 0.125, None, 0.75).as_json() == plain
    assert Agreement(3, 0.5, 1.5, 0.25, 0.125, None, 0.75).as_json() == plain | {"token_error": 1.5}
    assert Agreement(3, 0.5, None, 0.25, 0.125, 0.0625, 0.75).as_json() == plain | {"shift": 0.0625}


def test_the_rank_correlation_is_spearmans(decoder: GraphSession, reward: References) -> None:
    noisy = changed(decoder, rows_over=0, row=0, by=0.0)
    assert agreement(reward, noisy).rank_correlation == pytest.approx(1.0)
    reversed_values = [-value for value in reward.values]
    assert agreement(replace(reward, values=reversed_values), noisy).rank_correlation == pytest.approx(-1.0)
    rng = np.random.default_rng(3)
    shuffled = [np.array([number], dtype=np.float32) for number in rng.integers(0, 4, len(reward.values))]  # with ties
    found = agreement(replace(reward, values=shuffled), noisy).rank_correlation
    wanted = spearmanr([float(value[0]) for value in shuffled], [float(value[0]) for value in reward.values])
    assert found == pytest.approx(float(wanted.statistic), abs=1e-6)


def test_where_no_value_varies_the_ranks_agree_and_where_one_side_varies_they_do_not(
    decoder: GraphSession, reward: References
) -> None:
    flat = replace(reward, values=[np.ones(1, dtype=np.float32)] * len(reward.values))
    assert agreement(flat, decoder).rank_correlation == 0.0
    assert agreement(flat, cast(GraphSession, Flat())).rank_correlation == 1.0


def test_a_shift_of_all_rewards_is_seen_though_their_order_is_the_same(
    decoder: GraphSession, reward: References
) -> None:
    spread = float(np.concatenate(reward.values).std())
    moved = replace(reward, values=[value + np.float32(0.3 * spread) for value in reward.values])
    found = agreement(moved, decoder)
    assert found.rank_correlation == pytest.approx(1.0)
    assert found.shift == pytest.approx(0.3, rel=1e-3)
    assert any(figure.startswith("shift ") for figure in found.beyond(BOUNDS["int8"]))


def test_several_outputs_in_one_pass_give_the_figures_of_each_alone(
    decoder: GraphSession, nll: References, reward: References
) -> None:
    both = agreements([nll, replace(reward, texts=nll.texts)], decoder)
    assert both == [agreement(nll, decoder), agreement(replace(reward, texts=nll.texts), decoder)]
