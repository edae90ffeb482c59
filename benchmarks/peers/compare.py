"""The peers' comparison: ``make bench``. Ours and each peer over the same rows and weights, in one run.

Environment: ``BENCH_ROWS`` (150; 12 for a try), ``BENCH_ROUNDS`` (3), ``BENCH_ONLY`` (names of entries with commas
between; all), ``BENCH_VECTORS`` (50,000, or 5,000 under 48 rows). ``--check`` compares numbers alone, on a few short
rows, with the peers that our own environment has. Results of fewer than 48 rows are printed and not written.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.peers import causal_entries, host_entries, job_entries, report
from benchmarks.peers.lines import Entry, Line, Measure, Run, UnequalNumbersError
from benchmarks.peers.material import MIN_ROWS, PEERS, Material, pythons, reason_missing
from benchmarks.peers.rounds import WorkerError, say
from instructmining import InstructMiningError

ENTRIES: dict[str, Measure] = {
    "perplexity": causal_entries.perplexity,
    "int8": causal_entries.int8,
    "embedding": job_entries.embedding,
    "job": job_entries.job,
    "host": host_entries.host,
    "mtld": host_entries.mtld,
    "knn": host_entries.knn,
    "start": host_entries.start,
    "ifd": host_entries.ifd,
    "latency": causal_entries.latency,
}
CHECKED = ("perplexity", "job", "mtld", "knn")  # have numbers to compare with the peers at hand, or run at least
WRITTEN_ROWS = 48  # fewer are a try
CHECK_ROWS = 8
SAMPLE_ROWS = 12  # that settings are searched with


def main(*, check: bool) -> int:
    """Print, write, and return the exit status: 1 where numbers differ."""
    rows = CHECK_ROWS if check else int(os.environ.get("BENCH_ROWS", "150"))
    if rows < MIN_ROWS:
        raise SystemExit(f"BENCH_ROWS is {rows}, wanted at least {MIN_ROWS}")
    usual = 50_000 if rows >= WRITTEN_ROWS else 5_000
    vectors = 2_000 if check else int(os.environ.get("BENCH_VECTORS") or usual)
    rounds = 0 if check else int(os.environ.get("BENCH_ROUNDS", "3"))
    machine = report.machine()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        # Every process keeps its compiled modules, as Python does unless it is told otherwise.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(Path(folder) / "bytecode")
        material = Material(Path(folder) / "all", rows, vectors, short=check)
        sample = (
            material if rows <= SAMPLE_ROWS else Material(Path(folder) / "sample", SAMPLE_ROWS, vectors, short=False)
        )
        run = Run(material, sample, pythons(own_only=check), rounds)
        for name in () if check else PEERS:
            if name not in run.pythons:
                say(f"peer missing: {name}: {reason_missing(name)}")
        entries, unequal = [], 0
        for name in _chosen(check=check):
            say(f"{name}:")
            begin = time.perf_counter()
            try:
                entries.append(ENTRIES[name](run))
            except (WorkerError, InstructMiningError, subprocess.CalledProcessError) as error:
                entries.append(Entry(name, [Line(name, "", None, note=f"failed: {error}")]))
                unequal += check
            except UnequalNumbersError as error:
                entries.append(Entry(name, [Line(name, "", None, note=f"unequal numbers, not timed: {error}")]))
                unequal += 1
            say(f"  {time.perf_counter() - begin:.0f} s")
            if not check and rows >= WRITTEN_ROWS:
                say(f"  written to {report.write(report.as_json(entries[-1:], run, machine), list(ENTRIES))}")
    lines = [line for entry in entries for line in entry.lines]
    print("\n".join(report.table(lines)))
    print(f"load before: {machine['load_before']}, after: {[round(load, 2) for load in os.getloadavg()]}")
    return 1 if unequal else 0


def _chosen(*, check: bool) -> list[str]:
    asked = [name for name in os.environ.get("BENCH_ONLY", "").split(",") if name]
    for name in asked:
        if name not in ENTRIES:
            raise SystemExit(f"BENCH_ONLY: {name!r}; wanted some of {','.join(ENTRIES)}")
    return asked or list(CHECKED if check else ENTRIES)


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
