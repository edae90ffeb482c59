"""A selection from parts is that of ``select`` from the merged file, byte for byte."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_up_parts import Row, scored_rows, write_parts
from numpy.typing import NDArray
from ray_workers import workers_at

from instructmining import Distinct, Example, SelectionOptions, select
from instructmining.errors import InstructMiningError, OutputError, SelectionError
from instructmining_scale import select_dataset
from instructmining_scale import selection as selections
from instructmining_scale.plan import PlanError
from instructmining_scale.ray_pool import connected

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

QUESTIONS: list[dict[str, Any]] = [
    {"top": 1},
    {"top": 37},
    {"top": 10_000},
    {"fraction": 0.25},
    {"fraction": 0.5, "by": "perplexity", "descending": True},
    {"max_loss": 2.0},
    {"max_loss": -0.0, "top": 30},
    {"tokens": 900},
    {"tokens": 1},
    {"tokens": 10**9},
    {"tokens": 700, "top": 40, "keep_scores": True},
    {"where": ["perplexity<=30", "kind==a"]},
    {"where": ["perplexity<=30", "kind!=b"], "top": 20, "by": "perplexity"},
    {"group_by": "kind", "top": 5},
    {"group_by": "kind", "fraction": 0.3, "tokens": 1200},
    {"group_by": "kind", "quotas": {"a": 3, "null": 10_000, "7": 0}},
    {"group_by": "kind", "quotas": {"b": 7}, "top": 2, "max_loss": 1.0, "tokens": 150},
    {"group_by": "id", "top": 1, "tokens": 800},
    {"where": ["perplexity<-1"]},
]


class NoVectors:
    """An encoder that is not used."""

    def embeddings(self, examples: Iterable[Example]) -> Generator[NDArray[np.float32], None, None]:
        raise NotImplementedError


def cut(rows: Sequence[Row], parts: int, seed: int) -> list[Sequence[Row]]:
    """Parts of any sizes, some without rows."""
    rng = random.Random(seed)
    cuts = sorted(rng.randrange(len(rows) + 1) for _ in range(parts - 1))
    return [rows[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(rows)], strict=True)]


@pytest.mark.parametrize("file_bytes", [64 << 20, 1500])
@pytest.mark.parametrize("question", QUESTIONS, ids=str)
def test_the_rows_and_counts_are_those_of_select(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, question: dict[str, Any], file_bytes: int
) -> None:
    monkeypatch.setattr(selections, "_FILE_BYTES", file_bytes)
    merged = write_parts(tmp_path / "parts", cut(scored_rows(300), 7, seed=3))
    expected = select(merged, tmp_path / "best.jsonl", **question)
    found = select_dataset(tmp_path / "parts", tmp_path / "best", **question)
    assert b"".join(path.read_bytes() for path in found.files) == (tmp_path / "best.jsonl").read_bytes()
    assert found.selection == expected
    assert len(found.files) == 1 or file_bytes < 2000
    said, wanted = (
        json.loads(path.read_bytes())
        for path in (found.folder / "selection.json", tmp_path / "best.jsonl.selection.json")
    )
    for name in ("choice", "by", "prefix", "descending", "keep_scores", "counts", "tokens", "worst", "remarks"):
        assert said[name] == wanted[name]
    assert [file["name"] for file in said["files"]] == [path.name for path in found.files]
    assert sum(file["rows"] for file in said["files"]) == expected.kept
    assert sorted(path.name for path in found.folder.iterdir()) == sorted(
        [*(path.name for path in found.files), "selection.json"]
    )


@pytest.mark.parametrize("seed", range(6))
def test_rows_of_equal_values_keep_their_order_over_all_parts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int
) -> None:
    monkeypatch.setattr(selections, "_FILE_BYTES", 800)
    rows = scored_rows(200, seed, values=1 + seed % 3)
    merged = write_parts(tmp_path / "parts", cut(rows, 1 + 3 * seed, seed), prefix="x_")
    rng = random.Random(seed)
    for number in range(4):
        question = {"top": rng.randrange(1, 150), "tokens": rng.randrange(1, 4000), "descending": bool(seed % 2)}
        question |= {"group_by": "kind"} if number % 2 else {}
        expected = select(merged, tmp_path / f"{number}.jsonl", prefix="x_", **question)  # type: ignore[arg-type]
        found = select_dataset(tmp_path / "parts", tmp_path / f"{number}", **question)  # type: ignore[arg-type]
        assert b"".join(path.read_bytes() for path in found.files) == (tmp_path / f"{number}.jsonl").read_bytes()
        assert found.selection == expected


@pytest.mark.parametrize(
    ("question", "error", "said"),
    [
        ({}, SelectionError, "give at least one of top"),
        ({"top": 0}, SelectionError, "top is 0, wanted at least 1"),
        ({"max_loss": 1.0, "descending": True}, SelectionError, "cannot be combined with descending"),
        (
            {"choice": SelectionOptions(distinct=Distinct(0.3, NoVectors()))},
            SelectionError,
            "distinct compares every row",
        ),
        ({"choice": SelectionOptions(top=1), "top": 2}, SelectionError, "give one or the other"),
        ({"top": 1, "by": "reward"}, SelectionError, "no column 'reward'"),
        ({"top": 1, "where": ["no<3"]}, SelectionError, "no column 'no'"),
        ({"top": 1, "group_by": "text2"}, SelectionError, "no column 'text2'"),
        ({"group_by": "kind", "quotas": {"z": 1}}, SelectionError, "--quota z=1"),
        ({"top": 1, "out": "there"}, OutputError, "there: exists; name another folder"),
        ({"top": 1, "scored": "."}, PlanError, "has no plan.json"),
    ],
)
def test_what_cannot_be_selected_is_an_error_and_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    question: dict[str, Any],
    error: type[InstructMiningError],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_parts(tmp_path / "parts", cut(scored_rows(50), 3, seed=1))
    (tmp_path / "there").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error, match=said) as raised:
        select_dataset(**({"scored": "parts", "out": "best"} | question))
    assert "\n" not in str(raised.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.peer
def test_on_a_cluster_the_rows_are_the_same_whatever_worker_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    merged = write_parts(tmp_path / "parts", cut(scored_rows(3000), 40, seed=2))
    question: dict[str, Any] = {"group_by": "kind", "fraction": 0.4, "tokens": 20_000}
    expected = select(merged, tmp_path / "best.jsonl", **question)
    killed, done = set[int](), threading.Event()

    def kill() -> None:
        while not done.is_set() and len(killed) < 2:
            for worker in [*workers_at("look"), *workers_at("cut_out")][: 2 - len(killed)]:
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
                    killed.add(worker)
            time.sleep(0.1)

    with connected(cluster.address):
        killing = threading.Thread(target=kill)
        killing.start()
        found = select_dataset(tmp_path / "parts", tmp_path / "best", **question)
        done.set()
        killing.join()
    assert killed
    assert b"".join(path.read_bytes() for path in found.files) == (tmp_path / "best.jsonl").read_bytes()
    assert found.selection == expected


@pytest.mark.peer
def test_an_error_in_a_task_is_that_of_the_process(cluster: Cluster, tmp_path: Path) -> None:
    write_parts(tmp_path / "parts", [scored_rows(20)])
    with connected(cluster.address), pytest.raises(SelectionError, match="no column 'reward'"):
        select_dataset(tmp_path / "parts", tmp_path / "best", top=3, by="reward")


def test_lengths_that_are_no_numbers_of_tokens_are_refused(tmp_path: Path) -> None:
    rows = [row | {"input_length": 1.5} for row in scored_rows(9)]
    write_parts(tmp_path / "parts", [rows])
    with pytest.raises(SelectionError, match="of a row is no whole number of tokens"):
        select_dataset(tmp_path / "parts", tmp_path / "best", tokens=5)


def test_a_part_that_is_damaged_is_named(tmp_path: Path) -> None:
    write_parts(tmp_path / "parts", cut(scored_rows(50), 3, seed=1))
    with (tmp_path / "parts" / "part-00002-of-00003.jsonl").open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(PlanError, match=r"part-00002-of-00003\.jsonl: has .* bytes, its run file says"):
        select_dataset(tmp_path / "parts", tmp_path / "best", top=5)


def test_a_selection_is_replaced_only_when_asked_to(tmp_path: Path) -> None:
    write_parts(tmp_path / "parts", cut(scored_rows(50), 3, seed=1))
    assert select_dataset(tmp_path / "parts", tmp_path / "best", top=5).selection.kept == 5
    with pytest.raises(OutputError, match="best: exists; name another folder, or replace a selection with overwrite"):
        select_dataset(tmp_path / "parts", tmp_path / "best", top=6)
    assert select_dataset(tmp_path / "parts", tmp_path / "best", top=6, overwrite=True).selection.kept == 6
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(OutputError, match="mine: exists"):
        select_dataset(tmp_path / "parts", tmp_path / "mine", top=6, overwrite=True)
