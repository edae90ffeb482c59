"""The corpus pass: one search for all indicators, nulls with reasons, what is said before and after."""

from __future__ import annotations

import importlib.util
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from instructmining import Statistics
from instructmining.errors import DeviceError, InstructMiningError, RuleError
from instructmining.indicators import CorpusIndicator
from instructmining.inference.devices import Device
from instructmining.knn import search as corpus_module
from instructmining.knn.options import KnnOptions
from instructmining.knn.search import NeighbourSearch, Pools, pools_of, siblings_of
from instructmining.types import Example, SourceRow, Turn

KNN_1 = CorpusIndicator("knn_1", ("embedding",), k=1)
KNN_6 = CorpusIndicator("knn_6", ("embedding",), k=6)
CPU = Device("cpu", threads=1)


def unit_vectors(rows: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(0).normal(size=(rows, 16)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def brute_force(points: NDArray[np.float32], k: int) -> NDArray[np.float64]:
    distances = np.linalg.norm(points[:, None].astype(np.float64) - points[None], axis=2)
    return np.sort(distances, axis=1)[:, k]


def test_each_indicator_has_its_neighbours_distance() -> None:
    points, counts = unit_vectors(50), Statistics()
    columns = NeighbourSearch([KNN_1, KNN_6], KnnOptions(), CPU).columns(points, counts, lambda: None)
    for indicator in (KNN_1, KNN_6):
        found = columns[indicator.column]
        np.testing.assert_allclose(found.values, brute_force(points, indicator.k), rtol=0, atol=1e-7)
        assert not found.notes
    assert counts.neighbours_done == 50
    assert "neighbours" in counts.seconds
    assert counts.neighbours_expected_s is None  # it takes no time worth a word
    assert counts.approximation is None


def test_too_few_rows_are_said_by_indicator() -> None:
    columns = NeighbourSearch([KNN_1, KNN_6], KnnOptions(), CPU).columns(unit_vectors(3), Statistics(), lambda: None)
    assert np.isfinite(columns["knn_1"].values).all()
    assert np.isnan(columns["knn_6"].values).all()
    assert columns["knn_6"].notes[2] == "3 rows in the run; the distance to neighbour 6 needs 7"


def test_a_long_search_says_what_it_will_take_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "_WORTH_A_WORD", 50)
    counts = Statistics()
    seen: list[tuple[float | None, int]] = []
    NeighbourSearch([KNN_6], KnnOptions(), CPU).columns(
        unit_vectors(60), counts, lambda: seen.append((counts.neighbours_expected_s, counts.neighbours_done))
    )
    expected, done = seen[0]
    assert expected is not None
    assert expected > 0
    assert done == 0


@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="the extra [knn] is not installed")
def test_an_approximate_search_says_what_it_is_worth() -> None:
    points, counts = unit_vectors(400), Statistics()
    columns = NeighbourSearch([KNN_6], KnnOptions("approx"), CPU).columns(points, counts, lambda: None)
    assert counts.approximation is not None
    assert 0.9 < counts.approximation.recall <= 1
    assert counts.approximation.sample_rows == 400
    found, exact = columns["knn_6"].values, brute_force(points, 6)
    assert (found >= exact - 1e-6).all()


def test_without_its_library_an_approximate_search_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(InstructMiningError, match=r"pip install 'instructmining\[knn\]'"):
        NeighbourSearch([KNN_6], KnnOptions("approx"), CPU)


# Settings


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"search": "fast"}, "'fast' is not known; wanted exact, approx"),
        ({"metric": "manhattan"}, "'manhattan' is not known; wanted euclidean, cosine"),
        ({"text": "title"}, "'title' is not known; wanted document, prompt, response"),
        ({"pool": "source", "against": "others.jsonl"}, "give one of them"),
        ({"search": "approx", "pool": "source"}, "search pools and files exactly"),
        ({"search": "approx", "against": "others.jsonl"}, "search pools and files exactly"),
    ],
)
def test_settings_that_cannot_be_are_refused(asked: dict[str, str], message: str) -> None:
    with pytest.raises(RuleError, match=message):
        KnnOptions(**asked)  # type: ignore[arg-type]


def test_the_cosine_distance_is_one_less_the_cosine() -> None:
    points = unit_vectors(60)
    found = NeighbourSearch([KNN_6], KnnOptions(metric="cosine"), CPU).columns(points, Statistics(), lambda: None)
    wanted = np.sort(1 - points.astype(np.float64) @ points.T.astype(np.float64), axis=1)[:, 6]
    # In float32 the vectors are as long as 1 but for 6e-8.
    np.testing.assert_allclose(found["knn_6"].values, wanted, rtol=0, atol=3e-7)


@settings(max_examples=25, deadline=None)
@given(of=st.lists(st.integers(-1, 3), min_size=1, max_size=40))
def test_neighbours_are_of_the_same_pool(of: list[int]) -> None:
    points, numbers = unit_vectors(len(of)), np.array(of)
    pools = Pools(numbers, ["a", "b", "c", "d"], dict.fromkeys(np.flatnonzero(numbers < 0).tolist(), "no pool"))
    columns = NeighbourSearch([KNN_1, KNN_6], KnnOptions(pool="source"), CPU).columns(
        points, Statistics(), lambda: None, pools=pools
    )
    for name, k in (("knn_1", 1), ("knn_6", 6)):
        for row, number in enumerate(of):
            same = np.flatnonzero(numbers == number)
            found = columns[name].values[row]
            if number < 0:
                assert columns[name].notes[row] == "no pool"
                assert np.isnan(found)
            elif len(same) <= k:
                assert f"rows in the pool {'abcd'[number]}; the distance to neighbour {k}" in columns[name].notes[row]
                assert np.isnan(found)
            else:
                distances = np.linalg.norm(points[same].astype(np.float64) - points[row], axis=1)
                assert found == pytest.approx(np.sort(distances)[k], abs=1e-7)


@settings(max_examples=25, deadline=None)
@given(
    of=st.lists(st.integers(-1, 9), min_size=2, max_size=60),
    near=st.sampled_from([0.0, 1e-9, 1e-7, 1e-3, 1.0]),
    small=st.sampled_from([0, 5, 256]),
    together=st.sampled_from([1, 8, 4096]),
    paired=st.booleans(),
)
def test_pools_of_any_sizes_have_the_distances_of_brute_force(
    of: list[int], near: float, small: int, together: int, paired: bool
) -> None:
    numbers = np.repeat(of, 2) if paired else np.array(of)
    rng = np.random.default_rng(len(of))
    points = unit_vectors(1) + near * rng.normal(size=(len(numbers), 16)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    siblings = np.arange(len(numbers)) ^ 1 if paired else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "_SMALL", small)
        patch.setattr(corpus_module, "_TOGETHER", together)
        found = NeighbourSearch([KNN_1, KNN_6], KnnOptions(pool="source"), CPU).columns(
            points, Statistics(), lambda: None, pools=Pools(numbers, list("abcdefghij"), {}), siblings=siblings
        )
    distances = np.linalg.norm(points[:, None].astype(np.float64) - points[None], axis=2)
    row = np.arange(len(points))
    apart = (numbers[:, None] != numbers) | (numbers < 0) | (row[:, None] == row)
    if siblings is not None:
        apart |= siblings[:, None] == row
    ordered = np.sort(np.where(apart, np.inf, distances), axis=1)
    for name, k in (("knn_1", 1), ("knn_6", 6)):
        wanted = ordered[:, k - 1] if k <= len(row) else np.full(len(row), np.inf)
        np.testing.assert_allclose(
            found[name].values, np.where(np.isinf(wanted), np.nan, wanted), rtol=1e-12, atol=1e-15
        )
        assert set(found[name].notes) == set(np.flatnonzero(np.isinf(wanted) & (numbers >= 0)).tolist())


def test_the_work_of_many_pools_grows_with_their_number() -> None:
    """Neither searches nor reports are as many as the pools."""

    def searched(pools: int, rows: int) -> tuple[int, int]:
        calls: list[int] = []
        reports: list[int] = []

        def counted(points: NDArray[np.float32], *rest: object) -> NDArray[np.float64]:
            calls.append(len(points))
            return original(points, *rest)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(corpus_module, "pool_distances", counted)
            patch.setattr(corpus_module, "neighbour_distances", pytest.fail)
            counts = Statistics()
            NeighbourSearch([KNN_1], KnnOptions(pool="id"), CPU).columns(
                np.ones((pools * rows, 2), np.float32),
                counts,
                lambda: reports.append(counts.neighbours_done),
                pools=Pools(np.arange(pools).repeat(rows), [str(pool) for pool in range(pools)], {}),
            )
        assert sum(calls) == (pools if rows > 1 else 0)
        assert reports[-1] == pools * rows
        return len(calls), len(reports)

    original = corpus_module.pool_distances
    assert searched(20_000, 1)[0] == 0
    calls, reports = searched(4_000, 8)
    assert calls == 8
    assert reports <= 10
    assert searched(8_000, 8)[0] == 16


def test_the_rows_of_another_file_are_the_neighbours() -> None:
    points, others = unit_vectors(30), unit_vectors(45)[20:]
    columns = NeighbourSearch([KNN_1, KNN_6], KnnOptions(against="others.jsonl"), CPU).columns(
        points, Statistics(), lambda: None, against=others
    )
    distances = np.sort(np.linalg.norm(points[:, None].astype(np.float64) - others[None], axis=2), axis=1)
    np.testing.assert_allclose(columns["knn_1"].values, distances[:, 0], rtol=0, atol=1e-7)
    np.testing.assert_allclose(columns["knn_6"].values, distances[:, 5], rtol=0, atol=1e-7)
    assert (columns["knn_1"].values[20:] == 0).all()  # these are in both: none is left out


def test_too_few_rows_to_compare_with_are_said() -> None:
    columns = NeighbourSearch([KNN_6], KnnOptions(against="x"), CPU).columns(
        unit_vectors(9), Statistics(), lambda: None, against=unit_vectors(5)
    )
    assert columns["knn_6"].notes[8] == "5 rows to compare with; the distance to neighbour 6 needs 6"


def example(prompt: str, response: str, **fields: object) -> Example:
    return Example(Example.of(prompt, response).turns, SourceRow("x", 1, 0, b"{}", fields))


def test_pools_are_rows_that_are_equal_in_a_field() -> None:
    rows = [example("a", "b", source=source) for source in ("x", "y", "x", None, ["z", 1], ["z", 1])]
    rows.insert(1, Example.of("a", "b"))
    pools = pools_of(rows, KnnOptions(pool="source"))
    assert pools is not None
    assert pools.numbers.tolist() == [0, -1, 1, 0, -1, 2, 2]
    assert pools.names == ['"x"', '"y"', '["z",1]']
    assert pools.reasons == dict.fromkeys((1, 4), "the row has no field 'source' to find its pool by")


def test_a_row_without_a_prompt_has_no_place_among_prompts() -> None:
    rows = [example("a", "b"), example(" ", "b"), example("c", "d")]
    pools = pools_of(rows, KnnOptions(text="prompt"))
    assert pools is not None
    assert (pools.numbers.tolist(), pools.names, pools.reasons) == ([0, -1, 0], [None], {1: "the prompt is empty"})
    assert pools_of(rows, KnnOptions()) is None


# A search that was cut


def test_distances_that_were_found_are_not_searched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "_KEEP_S", 0.0)
    monkeypatch.setattr(corpus_module, "_SMALL", 0)
    points, numbers = unit_vectors(60), np.arange(60) % 3
    pools = Pools(numbers, ["a", "b", "c"], {})
    searched: list[int] = []
    original = corpus_module.neighbour_distances

    def failing(of: NDArray[np.float32], *rest: object, **named: object) -> NDArray[np.float64]:
        searched.append(len(of))
        if len(searched) == 3:
            raise DeviceError("cut")
        return original(of, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(corpus_module, "neighbour_distances", failing)
    search = NeighbourSearch([KNN_6], KnnOptions(pool="source"), CPU)
    with pytest.raises(DeviceError, match="cut"):
        search.columns(points, Statistics(), lambda: None, pools=pools, kept=tmp_path / "neighbours")
    found = search.columns(points, Statistics(), lambda: None, pools=pools, kept=tmp_path / "neighbours")
    assert len(searched) == 4  # two, the one that was cut, and that again
    again = search.columns(points, Statistics(), lambda: None, pools=pools, kept=tmp_path / "neighbours")
    assert len(searched) == 4
    for part in range(3):
        same = points[numbers == part]
        np.testing.assert_allclose(found["knn_6"].values[numbers == part], brute_force(same, 6), rtol=0, atol=1e-7)
    np.testing.assert_array_equal(found["knn_6"].values, again["knn_6"].values)


@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="the extra [knn] is not installed")
def test_a_run_that_goes_on_knows_what_its_approximate_search_was_worth(tmp_path: Path) -> None:
    points, first, second = unit_vectors(60), Statistics(), Statistics()
    search = NeighbourSearch([KNN_6], KnnOptions("approx"), CPU)
    found = search.columns(points, first, lambda: None, kept=tmp_path / "neighbours")
    again = search.columns(points, second, lambda: None, kept=tmp_path / "neighbours")
    assert first.approximation == second.approximation is not None
    np.testing.assert_array_equal(found["knn_6"].values, again["knn_6"].values)


# Pairs


def sides(pairs: int, singles: int) -> list[Example]:
    """So many pairs, and examples that are none behind them."""
    both = [side for n in range(pairs) for side in Example.pair(f"question {n}", "yes", "no").sides]
    return [*both, *(Example.of(f"question {n}", "maybe") for n in range(singles))]


def without_siblings(points: NDArray[np.float32], siblings: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    distances = np.linalg.norm(points[:, None].astype(np.float64) - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    with_sibling = np.flatnonzero(siblings >= 0)
    distances[with_sibling, siblings[with_sibling]] = np.inf
    return np.sort(distances, axis=1)[:, k - 1]


def test_the_sides_of_a_pair_know_each_other() -> None:
    assert siblings_of(sides(2, 1)).tolist() == [1, 0, 3, 2, -1]


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.integers(1, 12),
    singles=st.integers(0, 5),
    near=st.sampled_from([0.0, 1e-7, 1e-3, 1.0]),
    copies=st.integers(0, 4),
    seed=st.integers(0, 99),
)
def test_the_other_side_is_no_neighbour_however_near_it_is(
    pairs: int, singles: int, near: float, copies: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(2 * pairs + singles, 8)).astype(np.float32)
    points[1 : 2 * pairs : 2] = points[: 2 * pairs : 2] + near * points[1 : 2 * pairs : 2]
    points[:copies] = points[0]  # more rows that are the same
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    siblings = siblings_of(sides(pairs, singles))
    indicators = [KNN_1, CorpusIndicator("knn_2", ("embedding",), k=2), KNN_6]
    search = NeighbourSearch(indicators, KnnOptions(), CPU)
    columns = search.columns(points, Statistics(), lambda: None, siblings=siblings)
    others = len(points) - 1 - (siblings >= 0)
    for indicator in indicators:
        found = columns[indicator.column]
        enough = others >= indicator.k
        assert np.isnan(found.values[~enough]).all()
        assert set(found.notes) == set(np.flatnonzero(~enough).tolist())
        if enough.any():
            wanted = without_siblings(points, siblings, indicator.k)
            np.testing.assert_allclose(found.values[enough], wanted[enough], rtol=0, atol=1e-6)


def test_the_sides_of_a_pair_are_apart_in_their_pool_too() -> None:
    points = unit_vectors(12)
    siblings = siblings_of(sides(5, 2))
    of = np.array([0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 1])
    search = NeighbourSearch([KNN_1], KnnOptions(pool="a"), CPU)
    columns = search.columns(points, Statistics(), lambda: None, pools=Pools(of, ["0", "1"], {}), siblings=siblings)
    distances = np.linalg.norm(points[:, None].astype(np.float64) - points[None], axis=2)
    apart = (of[:, None] != of) | np.eye(12, dtype=bool) | (siblings[:, None] == np.arange(12))
    wanted = np.where(apart, np.inf, distances).min(axis=1)
    np.testing.assert_allclose(columns["knn_1"].values, wanted, rtol=0, atol=1e-7)


def test_rows_of_another_file_are_neighbours_of_both_sides() -> None:
    points, others = unit_vectors(4), unit_vectors(9)[4:]
    search = NeighbourSearch([KNN_1], KnnOptions(against="x"), CPU)
    siblings = siblings_of(sides(2, 0))
    columns = search.columns(points, Statistics(), lambda: None, siblings=siblings, against=others)
    wanted = np.linalg.norm(points[:, None].astype(np.float64) - others[None], axis=2).min(axis=1)
    np.testing.assert_allclose(columns["knn_1"].values, wanted, rtol=0, atol=1e-7)


def test_a_side_whose_prompt_is_empty_does_not_disturb_the_neighbours_of_the_others() -> None:
    pair = Example.pair("question", "yes", "no")
    lone = Example(pair.turns, rejected=Example.of("", "no").turns)
    examples = [*sides(3, 0), *lone.sides, *lone.sides]
    points = unit_vectors(len(examples))
    settings = KnnOptions(text="prompt")
    search = NeighbourSearch([KNN_1], settings, CPU)
    pools = pools_of(examples, settings)
    siblings = siblings_of(examples)
    columns = search.columns(points, Statistics(), lambda: None, pools=pools, siblings=siblings)
    among = np.array([0, 1, 2, 3, 4, 5, 6, 8])
    distances = np.linalg.norm(points[:, None].astype(np.float64) - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    distances[np.arange(len(points)), siblings] = np.inf
    np.testing.assert_allclose(columns["knn_1"].values[among], distances[np.ix_(among, among)].min(axis=1), atol=1e-7)
    assert set(columns["knn_1"].notes) == {7, 9}


def test_pools_named_by_long_texts_are_told_apart_and_not_held() -> None:
    long = 100_000 * "x"
    values = [long + "a", long + "b", long + "a", "short"] + [f"{number}{long}" for number in range(100)]
    rows = (
        Example((Turn("user", "q"), Turn("assistant", "a")), SourceRow("f", 1, 0, b"", {"source": value}))
        for value in values
    )
    tracemalloc.start()
    pools = pools_of(rows, KnnOptions(pool="source"))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert pools is not None
    assert pools.numbers[:4].tolist() == [0, 1, 0, 2]
    assert len(set(pools.numbers.tolist())) == 103
    assert max(len(str(name)) for name in pools.names) < 100
    assert held < 1 << 20
