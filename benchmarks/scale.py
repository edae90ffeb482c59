"""What shards cost beside their rows: ``python -m benchmarks.scale``.

Prints, and writes ``results/scale-<device>.json``: seconds of a shard in a process of its own, and in a worker whose
models are open; of cutting many files; MB/s of ``merge``; and, where Ray is installed, the memory of a process that
gives out 10,000 shards. BENCH_BUNDLE is a bundle, best one whose models return zeros; BENCH_ROWS (20,000) are scored in
BENCH_SHARDS (40).
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import processor, results_file
from instructmining import __version__
from instructmining.inference.devices import cpu_threads
from instructmining.reading.formats import FieldOptions
from instructmining.reading.options import ReadOptions
from instructmining_scale.cuts import even_cuts
from instructmining_scale.merging import merge
from instructmining_scale.runs.ray_scoring import ShardWorker
from instructmining_scale.runs.scoring import ScoreRequest

_WORDS = ["the", "of", "to", "and", "in", "is", "it", "you", "that", "he", "was", "for", "on", "are", "with", "as"]
_FILES = 10_000
_GIVEN_OUT = 10_000


def main() -> None:
    """Measure, write and print."""
    bundle = os.environ["BENCH_BUNDLE"]
    rows, shards = int(os.environ.get("BENCH_ROWS", "20000")), int(os.environ.get("BENCH_SHARDS", "40"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = _written(folder / "rows.jsonl", rows)
        options = ReadOptions(block_bytes=max(1, data.stat().st_size // shards // 2))
        found: dict[str, Any] = {
            "rows": rows,
            "shards": shards,
            "bytes": data.stat().st_size,
            "process of a shard s": _processes(bundle, data, folder / "processes", options),
        }
        request = ScoreRequest(
            [str(data)],
            str(folder / "parts"),
            FieldOptions(),
            options,
            bundle=bundle,
            indicators="perplexity",
            device="cpu",
        )
        found["shards in an open worker s"] = _worker(request, shards)
        found["one shard in an open worker s"] = _worker(replace(request, out=str(folder / "one")), 1)
        seconds = _timed(lambda: merge(str(folder / "parts"), str(folder / "merged.jsonl")))
        found["merge MB/s"] = (folder / "merged.jsonl").stat().st_size / 1e6 / seconds
        found[f"cuts of {_FILES:,} files s"] = _many_files(folder / "many")
        if importlib.util.find_spec("ray") is not None:
            found[f"memory of a driver of {_GIVEN_OUT:,} shards"] = _driver()
    found |= {
        "measured": datetime.now(UTC).isoformat(timespec="minutes"),
        "load of the machine before": os.getloadavg()[0],
        "version": __version__,
        "machine": {"processor": processor(), "threads": cpu_threads()},
    }
    results_file("scale").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def _written(path: Path, rows: int) -> Path:
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            row = {
                "instruction": f"{number} " + " ".join(rng.choices(_WORDS, k=20)),
                "output": " ".join(rng.choices(_WORDS, k=40)),
            }
            file.write(json.dumps(row) + "\n")
    return path


def _processes(bundle: str, data: Path, parts: Path, options: ReadOptions) -> float:
    """Median seconds of a process with the smallest shard there is."""
    command = [sys.executable, "-m", "instructmining", "score", str(data), "-o", str(parts), "--bundle", bundle, "-q"]
    command += ["--indicators", "perplexity", "--device", "cpu", "--block-bytes", str(options.block_bytes)]

    def run(shard: int) -> float:
        return _timed(lambda: subprocess.run([*command, "--shard", f"{shard}/9999"], check=False))

    return statistics.median(run(shard) for shard in range(1, 6))


def _worker(request: ScoreRequest, shards: int) -> dict[str, float]:
    """Seconds of the shards in one worker, after a first one that opens the models."""
    worker = ShardWorker(request, shards, str(Path.cwd()))
    first = _timed(lambda: worker.score(1))
    others = [_timed(lambda shard=shard: worker.score(shard)) for shard in range(2, shards + 1)]  # type: ignore[misc]
    return {"first": first, "median": statistics.median(others) if others else first, "sum": first + sum(others)}


def _many_files(folder: Path) -> float:
    folder.mkdir()
    paths = []
    for number in range(_FILES):
        path = folder / f"{number:05}.jsonl"
        path.write_bytes(b'{"instruction": "a", "output": "b"}\n' * 20)
        paths.append(str(path))
    return _timed(lambda: even_cuts(paths, 512, ReadOptions(block_bytes=1 << 14)))


class Nothing:
    """A worker that does nothing."""

    def score(self, shard: int) -> int:
        """Return the number."""
        return shard


def _driver() -> dict[str, float]:
    from instructmining_scale.ray_pool import Pool, PoolOptions, connected  # noqa: PLC0415 - an extra

    with connected("local"):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        pool = Pool(PoolOptions("local", workers=1, uses_gpus=False))
        seconds = _timed(lambda: sum(1 for _ in pool.run(range(1, _GIVEN_OUT + 1), Nothing, ())))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"MiB before": before, "MiB after": after, "seconds": seconds}


def _timed(task: Callable[[], object]) -> float:
    begin = time.perf_counter()
    task()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
