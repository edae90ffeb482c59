"""Shards on a Ray cluster: the files of one run, whatever is killed meanwhile."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cut_runs import write_rows
from ray_workers import STORE, Worker, workers_at

from instructmining.errors import InputError
from instructmining_scale.ray_pool import Pool, PoolOptions, RayError, connected

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

Run = Callable[..., int]
COLUMNS = ("--indicators", "perplexity,knn_2,mtld", "--device", "cpu", "--block-bytes", "3000")
HAS_RAY = importlib.util.find_spec("ray") is not None
SHARDS = 12


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_without_ray_the_error_says_how_to_install_it(
    run: Run, small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "rows.jsonl", 5)
    arguments = (tmp_path / "rows.jsonl", "-o", tmp_path / "parts", "--ray", "local", "--bundle", small_bundle)
    assert run("score", *arguments, *COLUMNS) == 1
    assert "--ray needs Ray: pip install 'instructmining[ray]'" in capsys.readouterr().err


def test_a_shard_and_ray_together_are_wrong_usage(run: Run, small_bundle: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", 5)
    arguments = (tmp_path / "rows.jsonl", "-o", tmp_path / "parts", "--ray", "local", "--bundle", small_bundle)
    assert run("score", *arguments, *COLUMNS, "--shard", "1/2") == 2


@pytest.mark.peer
@pytest.mark.parametrize(
    ("shards", "error", "said"),
    [
        ([1, 66, 2], RayError, "shard 66: its worker was lost 4 times"),
        ([1, 77], InputError, r"rows.jsonl: No such file or directory"),
        ([88, 1], RayError, "shard 88: ZeroDivisionError: a fault"),
    ],
)
def test_errors_of_a_shard_end_the_run(cluster: Cluster, shards: list[int], error: type[Exception], said: str) -> None:
    with connected(cluster.address), pytest.raises(error, match=said):
        list(Pool(PoolOptions(cluster.address)).run(shards, Worker, ()))


@pytest.mark.peer
def test_each_shard_is_scored_once_by_as_many_workers_as_there_are_nodes(cluster: Cluster) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with connected(cluster.address):
        assert signal.getsignal(signal.SIGTERM) is handler
        pool = Pool(PoolOptions(cluster.address))
        assert pool.workers == 2
        assert sorted(pool.run(range(1, 9), Worker, ())) == [(shard, 10 * shard) for shard in range(1, 9)]


@pytest.mark.peer
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"uses_gpus": True}, "the cluster has no GPU; give --device cpu"),
        ({"workers": 5}, "the cluster has 2 CPUs, and 5 workers were asked for"),
    ],
)
def test_a_cluster_without_room_is_an_error(cluster: Cluster, options: dict[str, Any], said: str) -> None:
    with connected(cluster.address), pytest.raises(RayError, match=said):
        Pool(PoolOptions(cluster.address, **options))


@pytest.mark.peer
def test_an_address_without_a_cluster_is_an_error() -> None:
    with (
        pytest.raises(RayError, match=r"no Ray cluster at '127\.0\.0\.1:1': Connection refused"),
        connected("127.0.0.1:1"),
    ):
        pass


@pytest.mark.peer
def test_kills_of_workers_nodes_and_drivers_lose_nothing(
    cluster: Cluster, run: Run, small_bundle: Path, tmp_path: Path
) -> None:
    rng = random.Random(int(os.environ.get("FAULT_SEED", "0")))
    wanted = int(os.environ.get("RAY_KILLS", "50"))
    rows, one = tmp_path / "rows.jsonl", tmp_path / "one.jsonl"
    write_rows(rows, 150)
    settings = ("--bundle", str(small_bundle), *COLUMNS, "--max-batch-tokens", "256")
    assert run("score", rows, "-o", one, *settings) == 3
    killed = {"worker": 0, "node": 0, "driver": 0}
    round_ = 0
    while sum(killed.values()) < wanted:
        parts, merged = tmp_path / f"parts-{round_}", tmp_path / f"merged-{round_}.jsonl"
        command = [sys.executable, "-m", "instructmining", "score", str(rows), "-o", str(parts)]
        command += ["--ray", cluster.address, "--shards", str(SHARDS), *settings]
        while (code := _disturbed(command, cluster, killed, rng, tmp_path / "said")) not in {0, 3}:
            assert code == -signal.SIGKILL, (tmp_path / "said").read_text(encoding="utf-8")
        assert run("merge", parts, "-o", merged) == 3
        for end in ("", ".rejects.jsonl"):
            assert Path(f"{merged}{end}").read_bytes() == Path(f"{one}{end}").read_bytes()
        round_ += 1
    print(f"\n{killed} in {round_} runs")  # noqa: T201 - the figures of docs/scale.md


def _disturbed(command: list[str], cluster: Cluster, killed: dict[str, int], rng: random.Random, said: Path) -> int:
    """Run a driver, and kill something at a random moment, again and again; the exit code."""
    with said.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as driver:
        while True:
            with suppress(subprocess.TimeoutExpired):
                return driver.wait(rng.uniform(2, 8))
            kind = rng.choice(["worker", "worker", "node", "driver"])
            if kind == "driver":
                driver.kill()
                killed[kind] += 1
                return driver.wait()
            if kind == "node" and cluster.worker_nodes:
                cluster.remove_node(rng.choice(list(cluster.worker_nodes)), allow_graceful=False)
                cluster.add_node(num_cpus=1, object_store_memory=STORE)
                killed[kind] += 1
            elif workers := workers_at("ShardWorker"):
                with suppress(ProcessLookupError):
                    os.kill(rng.choice(workers), signal.SIGKILL)
                    killed["worker"] += 1
