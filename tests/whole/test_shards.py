"""A run in shards of which every process is killed at random moments gives the files of one run, to the byte."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from cut_runs import CUT, Command, outputs, write_rows

SHARDS = 3
COLUMNS = {
    "rows": ("--indicators", "perplexity,mtld"),
    "rows that wait for their neighbours": ("--indicators", "knn_2,mtld"),
}


def _cut(command: Command, seconds: float, rng: random.Random) -> tuple[int, int]:
    """Kill a command at random moments until it ends; its code, and how often it was killed.

    It gets more time after each kill: what begins anew each time would never end on a busy machine.
    """
    kills = 0
    while (code := command.run(rng.uniform(0, seconds * 1.2**kills))) == CUT:
        kills += 1
    return code, kills


def _cut_shards(kills: int, bundle: Path, folder: Path, columns: tuple[str, ...], rng: random.Random) -> None:
    rows, one = folder / "rows.jsonl", folder / "one.jsonl"
    write_rows(rows, 150)
    settings = ("score", str(rows), *columns, "--bundle", str(bundle), "--device", "cpu", "--block-bytes", "3000")
    Command(("--version",)).run()  # the first one waits until all is loaded
    assert Command((*settings, "-o", str(one))).run() == 3
    met, round_ = 0, 0
    while met < kills:
        parts, merged = folder / f"parts-{round_}", folder / f"merged-{round_}.jsonl"
        for shard in rng.sample(range(1, SHARDS + 1), SHARDS):
            shard_of = ("-o", str(parts), "--shard", f"{shard}/{SHARDS}")
            code, killed = _cut(Command((*settings, *shard_of)), 1.0, rng)
            assert code in {0, 3}
            met += killed
        if "knn_2" in columns[1]:
            code, killed = _cut(Command(("neighbours", str(parts))), 0.7, rng)
            assert code == 0
            met += killed
        merging = Command(("merge", str(parts), "-o", str(merged), "--overwrite"))
        code, killed = _cut(merging, 0.7, rng)
        assert code == 3
        met += killed
        assert outputs(merged) == outputs(one)
        round_ += 1


@pytest.mark.parametrize("kind", COLUMNS)
def test_shards_that_are_killed_merge_to_the_files_of_one_run(kind: str, small_bundle: Path, tmp_path: Path) -> None:
    _cut_shards(4, small_bundle, tmp_path, COLUMNS[kind], random.Random(0))


@pytest.mark.faults
@pytest.mark.parametrize("kind", COLUMNS)
def test_many_kills_of_shards_lose_nothing(kind: str, small_bundle: Path, tmp_path: Path) -> None:
    seed = int(os.environ.get("FAULT_SEED", "0"))
    _cut_shards(int(os.environ.get("FAULT_KILLS", "100")), small_bundle, tmp_path, COLUMNS[kind], random.Random(seed))
