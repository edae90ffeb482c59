"""A Ray Dataset is scored to the rows of one machine, whatever is killed meanwhile."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ray_workers import workers_at

from instructmining.errors import BundleError, OutputError, RuleError
from instructmining.reading.options import ReadOptions
from instructmining_scale import DatasetError, DatasetOptions, RayError, score_dataset
from instructmining_scale.ray_pool import connected

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster
    from ray.data import Dataset

Run = Callable[..., int]
HAS_RAY = importlib.util.find_spec("ray") is not None
COLUMNS = "perplexity,mtld,output_length"
OPTIONS = DatasetOptions(reading=ReadOptions(block_bytes=4 << 10), max_batch_tokens=256)  # blocks of a file each
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's, of its own options
SETTINGS = ("--indicators", COLUMNS, "--device", "cpu", "--block-bytes", str(4 << 10), "--max-batch-tokens", "256")


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_without_ray_the_error_says_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(RayError, match=r"pip install 'instructmining\[ray\]'"):
        score_dataset([], tmp_path / "out", bundle=tmp_path)  # type: ignore[arg-type]


def made_rows(count: int, seed: int = 0) -> list[dict[str, object]]:
    """Rows with ids and other columns; every 25th has no response, some are too short for mtld."""
    rng = random.Random(seed)
    words = ["the", "of", "to", "and", "in", "is", "it", "you", "that", "he", "was", "for", "on", "are"]
    return [
        {
            "id": f"row-{number}",
            "instruction": " ".join(rng.choices(words, k=rng.randint(1, 20))),
            "output": "" if number % 25 == 7 else " ".join(rng.choices(words, k=rng.randint(1, 60))),
            "meta": {"source": "made", "number": number if number % 3 else None},
            "weight": None if number % 4 else number / 7,
        }
        for number in range(count)
    ]


def of_items(rows: list[dict[str, object]], _: Path) -> Dataset:
    import ray  # noqa: PLC0415 - peer

    return ray.data.from_items(rows, override_num_blocks=5)


def of_parquet(rows: list[dict[str, object]], folder: Path) -> Dataset:
    import pyarrow as pa  # noqa: PLC0415
    import ray  # noqa: PLC0415 - peer
    from pyarrow import parquet  # noqa: PLC0415

    folder.mkdir()
    for begin in range(0, len(rows), 70):
        parquet.write_table(pa.Table.from_pylist(rows[begin : begin + 70]), folder / f"{begin:05}.parquet")
    return ray.data.read_parquet(str(folder)).map(lambda row: row)


def of_pandas(rows: list[dict[str, object]], _: Path) -> Dataset:
    import pandas as pd  # noqa: PLC0415
    import ray  # noqa: PLC0415 - peer

    return ray.data.from_pandas([pd.DataFrame(rows[:90]), pd.DataFrame(rows[90:])])


def check_equal_to_one_run(run: Run, out: Path, bundle: Path) -> list[dict[str, Any]]:
    """Check that the merged parts are what one machine writes; returns its rows."""
    one, merged = out.with_name("one.jsonl"), out.with_name("merged.jsonl")
    codes = {run("score", out / "rows", "-o", one, "--bundle", bundle, *SETTINGS), run("merge", out, "-o", merged)}
    assert len(codes) == 1
    for end in ("", ".rejects.jsonl"):
        assert Path(f"{merged}{end}").read_bytes() == Path(f"{one}{end}").read_bytes()
    return [json.loads(line) for line in one.read_bytes().splitlines()]


@pytest.mark.peer
@pytest.mark.parametrize("source", [of_items, of_parquet, of_pandas])
def test_the_rows_are_those_of_one_run_in_order_with_their_own_columns(
    cluster: Cluster,
    run: Run,
    small_bundle: Path,
    tmp_path: Path,
    source: Callable[[list[dict[str, object]], Path], Dataset],
) -> None:
    rows = made_rows(150)
    out, said = tmp_path / "out", list[str]()
    with connected(cluster.address):
        dataset = source(rows, tmp_path / "source")
        arguments: dict[str, Any] = {"bundle": small_bundle, "indicators": COLUMNS, "options": OPTIONS}
        scored = score_dataset(dataset, out, device="cpu", shards=4, say=said.append, **arguments)
        found = scored.dataset.take_all()
    expected = check_equal_to_one_run(run, out, small_bundle)
    assert len(scored.files) > 1
    assert [row["id"] for row in found] == [row["id"] for row in rows if row["output"]]
    assert (scored.rows, scored.rejected) == (len(found), 6)
    for row, one in zip(found, expected, strict=True):
        assert {name: row[name] for name in ("instruction", "perplexity", "mtld", "output_length")} == {
            name: one[name] for name in ("instruction", "perplexity", "mtld", "output_length")
        }
        assert row["meta"]["number"] == one["meta"]["number"]
        assert row["weight"] == pytest.approx(one["weight"])
    assert said[0].startswith("150 rows in ")
    assert said[1] == "4 shards on 2 workers"


@pytest.mark.peer
def test_a_second_call_reads_nothing_and_scores_what_is_missing_or_damaged(
    cluster: Cluster, run: Run, small_bundle: Path, tmp_path: Path
) -> None:
    import ray  # noqa: PLC0415 - peer

    out, read, said = tmp_path / "out", tmp_path / "read", list[str]()
    read.mkdir()

    def noted(batch: object) -> object:
        (read / f"{time.time_ns()}").touch()
        return batch

    with connected(cluster.address):
        dataset = ray.data.from_items(made_rows(120)).map_batches(noted)
        arguments: dict[str, Any] = {"bundle": small_bundle, "indicators": COLUMNS, "options": OPTIONS, "device": "cpu"}
        (out / "rows").mkdir(parents=True)
        (out / "rows" / "rows-000099.parquet").write_bytes(b"of a driver that was killed")
        first = score_dataset(dataset, out, shards=4, **arguments)
        times = len(list(read.iterdir()))
        assert times
        (out / "part-00002-of-00004.jsonl").write_bytes(b"cut")
        (out / "part-00003-of-00004.jsonl.run.json").unlink()
        (out / "part-00003-of-00004.jsonl").unlink()
        again = score_dataset(dataset, out, say=said.append, **arguments)
        assert len(list(read.iterdir())) == times
        assert said[-1] == "2 of 4 shards were finished before, and are whole"
        assert (again.rows, again.rejected, again.files) == (first.rows, first.rejected, first.files)
        with pytest.raises(DatasetError, match=r"the columns id, .*; this one has a; name"):
            score_dataset(ray.data.from_items([{"a": 1}]).materialize(), out, **arguments)
    check_equal_to_one_run(run, out, small_bundle)


@pytest.mark.peer
def test_neighbours_among_all_rows_are_those_of_one_run(
    cluster: Cluster, run: Run, small_bundle: Path, tmp_path: Path
) -> None:
    out, one = tmp_path / "out", tmp_path / "one.jsonl"
    arguments: dict[str, Any] = {"bundle": small_bundle, "indicators": ["knn_2"], "options": OPTIONS, "device": "cpu"}
    with connected(cluster.address):
        scored = score_dataset(of_items(made_rows(90), tmp_path), out, shards=3, **arguments)
        found = [row["knn_2"] for row in scored.dataset.take_all()]
    settings = ("--indicators", "knn_2", "--bundle", small_bundle, *SETTINGS[2:])
    assert run("score", out / "rows", "-o", one, *settings) == 3
    assert scored.files == [out / "scored.jsonl"]
    assert scored.files[0].read_bytes() == one.read_bytes()
    assert found == [json.loads(line)["knn_2"] for line in one.read_bytes().splitlines()]


@pytest.mark.peer
def test_workers_of_the_dataset_that_hold_all_cpus_do_not_keep_it_from_being_scored(
    cluster: Cluster, run: Run, small_bundle: Path, tmp_path: Path
) -> None:
    class Same:
        def __call__(self, batch: object) -> object:
            return batch

    with connected(cluster.address):
        dataset = of_items(made_rows(60), tmp_path).materialize().map_batches(Same, concurrency=2)
        arguments: dict[str, Any] = {"bundle": small_bundle, "indicators": COLUMNS, "options": OPTIONS}
        score_dataset(dataset, tmp_path / "out", device="cpu", workers=2, **arguments)
    check_equal_to_one_run(run, tmp_path / "out", small_bundle)


@pytest.mark.peer
def test_a_killed_worker_costs_nothing_but_time(cluster: Cluster, run: Run, small_bundle: Path, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill() -> None:
        while len(killed) < 2:
            for worker in workers_at("ShardWorker"):
                if worker not in killed:
                    with suppress(ProcessLookupError):
                        os.kill(worker, signal.SIGKILL)
                        killed.append(worker)
            time.sleep(0.2)

    with connected(cluster.address):
        killing = threading.Thread(target=kill)
        killing.start()
        arguments: dict[str, Any] = {"bundle": small_bundle, "indicators": COLUMNS, "options": OPTIONS}
        score_dataset(of_items(made_rows(150), tmp_path), tmp_path / "out", device="cpu", shards=4, **arguments)
        killing.join()
    check_equal_to_one_run(run, tmp_path / "out", small_bundle)


DRIVER = """
import sys, time
from instructmining_scale.ray_pool import connected
from test_datasets import COLUMNS, OPTIONS, made_rows
from instructmining_scale import score_dataset
address, out, bundle = sys.argv[1:]
def slow(batch):
    time.sleep(0.5)
    return batch
with connected(address):
    import ray
    dataset = ray.data.from_items(made_rows(200), override_num_blocks=8).map_batches(slow)
    score_dataset(dataset, out, bundle=bundle, indicators=COLUMNS, device="cpu", shards=6, options=OPTIONS)
"""


@pytest.mark.peer
def test_a_driver_that_is_killed_goes_on_where_its_files_end(
    cluster: Cluster, run: Run, small_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", DRIVER, cluster.address, str(out), str(small_bundle)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ["PYTHONPATH"]])}
    for happened in (
        lambda: any(out.glob(".rows.*/*.parquet")),
        (out / "rows.json").exists,
        lambda: any(out.glob("part-*.run.json")),
    ):
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as driver:
            while not happened():
                assert driver.poll() is None
                time.sleep(0.05)
            driver.kill()
    assert subprocess.run(command, env=environment, check=False, stderr=subprocess.DEVNULL).returncode == 0
    rows = check_equal_to_one_run(run, out, small_bundle)
    assert [row["id"] for row in rows] == [row["id"] for row in made_rows(200) if row["output"]]
    assert not list(out.glob(".rows*"))


@pytest.mark.peer
def test_what_cannot_be_scored_is_an_error_of_one_line(cluster: Cluster, small_bundle: Path, tmp_path: Path) -> None:
    import numpy as np  # noqa: PLC0415
    import ray  # noqa: PLC0415 - peer

    def fault(_: object) -> object:
        raise ZeroDivisionError("a fault")

    def refuse(dataset: object, kind: type[Exception], said: str, **changed: object) -> None:
        arguments: dict[str, Any] = {
            "bundle": small_bundle,
            "indicators": COLUMNS,
            "device": "cpu",
            "out": tmp_path / "out",
        } | changed
        with pytest.raises(kind, match=said) as raised:
            score_dataset(dataset, **arguments)  # type: ignore[arg-type]
        assert "\n" not in str(raised.value)
        assert not (tmp_path / "out" / "rows.json").exists()

    with connected(cluster.address):
        rows = ray.data.from_items([{"instruction": "Hello?", "output": "Hello."}])
        tensors = rows.map(lambda row: {**row, "image": np.zeros((2, 2))})
        refuse(tensors, DatasetError, r"column 'image' of the dataset is .*drop_columns\(\['image'\]\)")
        objects = rows.map(lambda row: {**row, "kind": 1j})
        refuse(objects, DatasetError, r"column 'kind' of the dataset is ")
        refuse(rows.map(fault), DatasetError, "the dataset cannot be read: .*a fault")
        refuse(rows.flat_map(lambda _: []), DatasetError, "the dataset has no rows")
        refuse(rows, BundleError, "no-bundle", bundle=tmp_path / "no-bundle")
        refuse(rows, RuleError, "no indicator .perplexty.", indicators="perplexty")
        refuse(rows, RayError, "the cluster has 2 CPUs, and 7 workers were asked for", workers=7)
        refuse(rows, RayError, "the cluster has no GPU", device="cuda")
        refuse(rows, OutputError, "wanted a folder that all nodes see, not an address", out="s3://bucket/out")
        refuse([{"a": 1}], DatasetError, "the dataset is a list; wanted a ray.data.Dataset")
        (tmp_path / "out" / "rows").mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / "rows" / "mine.txt").touch()
        refuse(rows, OutputError, "holds mine.txt, which is no file of a dataset's rows")
    refuse(rows, RayError, r"call ray\.init\(\) first")
