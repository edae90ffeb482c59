"""The service under load: ``python -m benchmarks.serving``.

Prints tables for docs/serving.md and writes ``results/serving-<device>.json``. Needs wrk (Debian has a package ``wrk``,
or WRK names the program), and for the peer the environment that ``make bench-serving`` makes.

BENCH_BUNDLE is a bundle instead of the demo's, BENCH_CLIENTS (1,8,64,256) how many clients, BENCH_SECONDS (15) how long
each, BENCH_ROUNDS (3) how often, and BENCH_ONLY (equality,overhead,score,embeddings) what.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import processor, results_file
from benchmarks.peers.rounds import say
from benchmarks.serving import measures
from benchmarks.serving.report import tables
from instructmining import __version__
from instructmining.inference.devices import cpu_threads

_MEASURES = {
    "equality": measures.equality,
    "overhead": measures.overhead,
    "score": measures.score,
    "embeddings": measures.embeddings,
}


def main() -> None:
    """Measure, write and print."""
    wrk = os.environ.get("WRK") or shutil.which("wrk")
    if wrk is None:
        sys.exit("wrk is not installed; in Debian: apt-get install wrk (WRK names the program)")
    chosen = os.environ.get("BENCH_ONLY", ",".join(_MEASURES)).split(",")
    path = results_file("serving")
    results: dict[str, Any] = json.loads(path.read_bytes()) if path.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        run = measures.Run(
            Path(folder),
            wrk,
            clients=tuple(int(count) for count in os.environ.get("BENCH_CLIENTS", "1,8,64,256").split(",")),
            seconds=int(os.environ.get("BENCH_SECONDS", "15")),
            rounds=int(os.environ.get("BENCH_ROUNDS", "3")),
        )
        for name in chosen:
            say(f"{name}:")
            results[name] = _MEASURES[name](run) | {
                "measured": datetime.now(UTC).isoformat(timespec="minutes"),
                "load of the machine before": os.getloadavg()[0],
                "version": __version__,
            }
            results["machine"] = {"processor": processor(), "threads": cpu_threads()}
            path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(tables(results))


if __name__ == "__main__":
    main()
