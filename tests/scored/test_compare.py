from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray
from scipy import stats

from instructmining import Differing, compare
from instructmining.errors import InputError, OutputError, SelectionError
from instructmining.scored import compare as comparing
from instructmining.scored.matching import Matching, match
from instructmining.scored.selection import SelectionOptions, select

Run = Callable[..., int]


def line(row: int, reward: float | None, output_length: int = 5, prefix: str = "") -> bytes:
    columns = {"output_length": output_length, "reward": reward, "truncated": [], "score_notes": {}}
    added = orjson.dumps({f"{prefix}{name}": value for name, value in columns.items()})
    return b'{"row": %d,' % row + added[1:] + b"\n"


def scored(path: Path, rewards: dict[int, float | None], prefix: str = "") -> Path:
    path.write_bytes(b"".join(line(row, reward, 5 + row, prefix) for row, reward in rewards.items()))
    return path


@pytest.fixture
def first(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    rewards: dict[int, float | None] = {row: round(rng.normal(), 1) for row in range(80)}
    return scored(tmp_path / "first.jsonl", rewards | {7: None})


@pytest.fixture
def second(tmp_path: Path) -> Path:
    rng = np.random.default_rng(2)
    return scored(tmp_path / "second.jsonl", {row: round(rng.normal(0.5), 1) for row in range(50, 120)})


def rewards(path: Path) -> list[float]:
    found = [json.loads(text)["reward"] for text in path.read_bytes().splitlines()]
    return [reward for reward in found if reward is not None]


def test_columns_are_compared_as_numpy_and_scipy_do(first: Path, second: Path) -> None:
    reward = compare(first, second).columns["reward"]
    a, b = rewards(first), rewards(second)
    assert (reward.first_mean, reward.second_mean) == (pytest.approx(np.mean(a)), pytest.approx(np.mean(b)))
    assert reward.difference == pytest.approx(np.mean(b) - np.mean(a))
    assert (reward.first_deviation, reward.second_deviation) == (
        pytest.approx(np.std(a, ddof=1)),
        pytest.approx(np.std(b, ddof=1)),
    )
    spread = math.sqrt((np.var(a, ddof=1) + np.var(b, ddof=1)) / 2)
    assert reward.standardized == pytest.approx((np.mean(b) - np.mean(a)) / spread)
    assert reward.ks == pytest.approx(stats.ks_2samp(a, b).statistic)
    assert reward.wasserstein == pytest.approx(stats.wasserstein_distance(a, b))
    assert (reward.first_nulls, reward.second_nulls) == (1, 0)


def test_rows_are_matched_by_their_own_fields_whatever_their_scores(first: Path, second: Path) -> None:
    found = compare(first, second)
    assert (found.common, found.left, found.entered) == (30, 50, 40)
    assert found.first.tokens == {"output_length": sum(range(5, 85))}


def test_a_set_is_itself(first: Path) -> None:
    found = compare(first, first)
    assert (found.common, found.left, found.entered) == (80, 0, 0)
    assert found.columns["reward"].ks == found.columns["reward"].wasserstein == found.columns["reward"].difference == 0


@pytest.mark.parametrize("keep_scores", [True, False])
def test_a_subset_without_scores_has_those_of_the_set_it_is_of(
    first: Path, tmp_path: Path, *, keep_scores: bool
) -> None:
    best = tmp_path / "best.jsonl"
    select(first, best, SelectionOptions(top=20), by="reward", keep_scores=keep_scores)
    found = compare(first, best)
    wanted = sorted(rewards(first))[:20]
    assert (found.common, found.left, found.entered) == (20, 60, 0)
    assert found.second.values_from_other is not keep_scores
    assert found.columns["reward"].second_mean == pytest.approx(np.mean(wanted))
    assert found.columns["reward"].ks == pytest.approx(stats.ks_2samp(rewards(first), wanted).statistic)
    turned = compare(best, first)
    assert (turned.left, turned.entered, turned.columns["reward"].first_mean) == (0, 60, pytest.approx(np.mean(wanted)))


def test_rows_that_the_other_set_lacks_have_no_values_and_are_counted(first: Path, tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_bytes(b'{"row":3}\n{"row":500}\n')
    found = compare(first, tmp_path / "own.jsonl")
    assert (found.common, found.left, found.entered, found.second.unmatched) == (1, 79, 1, 1)
    assert found.columns["output_length"].second_mean == 8
    assert found.columns["output_length"].second_nulls == 1


def test_copies_are_counted_each(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(line(1, 0.5) * 3 + line(2, 0.5))
    (tmp_path / "b.jsonl").write_bytes(b'{"row":1}\n{"row":2}\n{"row":2}\n')
    found = compare(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert (found.common, found.left, found.entered, found.second.unmatched) == (2, 2, 1, 0)


def test_fields_in_another_order_are_the_same_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"x":1,"y":{"a":1,"b":2},"mtld":3}\n')
    (tmp_path / "b.jsonl").write_bytes(b'{"mtld": 4, "y": {"b": 2, "a": 1}, "x": 1}\n')
    assert compare(tmp_path / "a.jsonl", tmp_path / "b.jsonl").common == 1


def test_what_left_and_entered_is_written_byte_for_byte(first: Path, second: Path, tmp_path: Path) -> None:
    left, entered = tmp_path / "left.jsonl", tmp_path / "entered.jsonl.gz"
    compare(first, second, differing=Differing(left, entered))
    assert left.read_bytes().splitlines() == first.read_bytes().splitlines()[:50]
    assert gzip.decompress(entered.read_bytes()).splitlines() == second.read_bytes().splitlines()[30:]
    with pytest.raises(OutputError, match="exists; give --overwrite"):
        compare(first, second, differing=Differing(left))
    with pytest.raises(OutputError, match="which this command reads; name another output"):
        compare(first, second, differing=Differing(second, overwrite=True))


def test_a_prefix_is_of_both_sets(tmp_path: Path) -> None:
    a = scored(tmp_path / "a.jsonl", {1: 0.5, 2: 0.6}, prefix="im_")
    (tmp_path / "b.jsonl").write_bytes(b'{"row":1}\n')
    assert compare(a, tmp_path / "b.jsonl", prefix="im_").columns["reward"].second_mean == 0.5
    with pytest.raises(
        SelectionError, match=r"jsonl: no column that score adds\. Score it first: instructmining score FILE"
    ):
        compare(a, tmp_path / "b.jsonl")


def test_constants_have_no_standardized_difference(tmp_path: Path) -> None:
    a, b = scored(tmp_path / "a.jsonl", {1: 0.5, 2: 0.5}), scored(tmp_path / "b.jsonl", {1: 1.0, 2: 1.0})
    found = compare(a, b).columns["reward"]
    assert (found.difference, found.standardized, found.ks, found.wasserstein) == (0.5, None, 1.0, 0.5)


def test_a_set_without_rows_has_no_differences(first: Path, tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_bytes(b"")
    found = compare(first, tmp_path / "none.jsonl")
    assert (found.common, found.left, found.entered) == (0, 80, 0)
    assert found.columns["reward"].second_mean is found.columns["reward"].ks is None
    assert compare(tmp_path / "none.jsonl", tmp_path / "none.jsonl").columns == {}


def test_the_command_shows_text_and_json_and_writes_the_rows(
    run: Run, first: Path, second: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("compare", first, second, "--left", tmp_path / "left.jsonl", "--entered", tmp_path / "in.jsonl") == 0
    assert "in both 30, left (in A alone) 50, entered (in B alone) 40" in capsys.readouterr().out
    assert len((tmp_path / "left.jsonl").read_bytes().splitlines()) == 50
    assert len((tmp_path / "in.jsonl").read_bytes().splitlines()) == 40
    assert run("compare", first, second, "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["columns"]["reward"]["ks"] == compare(first, second).columns["reward"].ks
    assert run("compare", first, second, "--left", "x.jsonl", "--entered", "x.jsonl") == 2


@pytest.mark.parametrize("number", [2**53, 2**64, 2**70])
def test_integers_that_differ_by_one_are_different_rows(tmp_path: Path, number: int) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    first.write_bytes(line(number, 1.0) + line(number + 1, 1.0))
    second.write_bytes(line(number, 1.0) + line(number + 2, 1.0))
    found = compare(first, second)
    assert (found.common, found.left, found.entered) == (1, 1, 1)


def test_rows_nested_as_deep_as_they_are_read_are_compared(tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    deep = b'{"deep":' + b"[" * 400 + b"]" * 400 + b","
    first.write_bytes(deep + line(1, 1.0)[1:])
    second.write_bytes(deep + line(1, 1.0)[1:] + line(1, 1.0))
    found = compare(first, second)
    assert (found.common, found.left, found.entered) == (1, 0, 1)


def test_a_file_that_changes_between_its_readings_is_an_error(
    first: Path, second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def and_then_shorter(*digests: NDArray[np.uint64]) -> Matching:
        second.write_bytes(second.read_bytes().partition(b"\n")[0])
        return match(*digests)

    monkeypatch.setattr(comparing, "match", and_then_shorter)
    with pytest.raises(InputError, match=r"second\.jsonl: was changed while it was read"):
        compare(first, second, differing=Differing(entered=tmp_path / "entered.jsonl"))
    assert not (tmp_path / "entered.jsonl").exists()
