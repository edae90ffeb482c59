"""What a worker of a Ray cluster does with a shard, and what its driver says; no cluster is needed."""

from __future__ import annotations

from pathlib import Path

import pytest
from cut_runs import write_rows

from instructmining import __version__
from instructmining.reading.formats import FieldOptions
from instructmining.reading.options import ReadOptions
from instructmining_scale.plan import PlanError
from instructmining_scale.ray_pool import RayError
from instructmining_scale.runs.ray_scoring import Progress, ScoredShard, ShardWorker
from instructmining_scale.runs.scoring import ScoreRequest


def test_a_worker_looks_at_a_shard_that_is_there(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl", 60)
    options = ReadOptions(block_bytes=3000)
    request = ScoreRequest(
        ["rows.jsonl"], "parts", FieldOptions(), options, bundle=str(small_bundle), indicators="mtld", device="cpu"
    )
    worker = ShardWorker(request, 2, str(tmp_path))
    first = worker.score(1)
    assert first.rows > 0
    assert not first.was_there
    part = tmp_path / "parts" / "part-00001-of-00002.jsonl"
    content = part.read_bytes()
    assert worker.score(1).was_there
    part.write_bytes(content[:-1])
    assert worker.score(1) == first
    assert part.read_bytes() == content
    with pytest.raises(PlanError, match="its plan has 2 shards, not 3"):
        ShardWorker(request, 3, str(tmp_path)).score(1)


def test_the_driver_counts_shards_that_were_there_apart() -> None:
    said: list[str] = []
    progress = Progress(4, said.append)
    for shard, was_there in enumerate((True, False, True), 1):
        progress.take(shard, ScoredShard(10, 1, __version__, was_there))
    assert (progress.scored, progress.there, progress.left) == (1, 2, 1)
    assert (progress.rows, progress.rejected) == (10, 1)
    assert [line.split(";")[0] for line in said] == ["shard 2 (2 of 4): 10 rows"]


def test_a_worker_of_another_version_ends_the_run() -> None:
    with pytest.raises(RayError, match=rf"a worker has instructmining 0\.0, this process {__version__}; install one"):
        Progress(1, print).take(1, ScoredShard(10, 1, "0.0", was_there=False))
