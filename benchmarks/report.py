"""Weight and time of a report on made-up scored files: ``python -m benchmarks.report [ROWS...]``.

Each report runs in a process of its own, reading and writing files; the rows are made before. Prints a line per size:
bytes of the page, seconds, and the most memory that the process had.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import orjson

from benchmarks.machine import processor
from instructmining.inference.devices import cpu_threads
from instructmining.rules import Rule

SIZES = (10_000, 200_000, 1_000_000)
_CHUNK = 10_000
_SEED = 20261126
_WORDS = [f"word{number}" for number in range(2_000)]
_RUN = """
import json, resource, sys, time
began = time.perf_counter()
from instructmining_report import ReportOptions, report
made = report(sys.argv[1], sys.argv[2], ReportOptions(rule="paper-v1"))
seconds = time.perf_counter() - began
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"bytes": made.size, "seconds": seconds, "kib": memory, "rows": list(made.rows.values())}))
"""


def write_scored(path: Path, rows: int) -> None:
    """Write rows of about 900 bytes with all columns of the demo's bundle, a source, and some nulls and repeats."""
    rng = np.random.default_rng(_SEED)
    rule = Rule.load("paper-v1")
    with path.open("wb") as file:
        for begin in range(0, rows, _CHUNK):
            count = min(_CHUNK, rows - begin)
            lengths = np.clip(rng.lognormal(4.2, 1.0, count), 1, 400).astype(int)
            prompts = np.clip(rng.lognormal(2.8, 0.7, count), 2, 200).astype(int)
            columns = {
                "input_length": prompts,
                "output_length": lengths,
                "reward": rng.normal(0, 1, count),
                "perplexity": rng.lognormal(1.7, 0.8, count),
                "mtld": rng.gamma(3, 18, count),
                "knn_1": rng.beta(9, 2, count) * 1.2,
                "knn_6": rng.beta(12, 2, count) * 1.3,
                "naturalness": rng.beta(5, 2, count),
                "coherence": rng.beta(5, 2, count),
                "understandability": rng.beta(5, 2, count),
                "ifd": rng.beta(4, 2, count),
            }
            predicted = rule.predict(columns)
            lists = {name: values.tolist() for name, values in columns.items()}
            words = rng.integers(0, len(_WORDS), (count, 120))
            sources = rng.choice(["web", "books", "code", "forum", "wiki"], count, p=[0.4, 0.2, 0.2, 0.15, 0.05])
            for place in range(count):
                number = begin + place
                repeats = number % 50 == 49  # every fiftieth row repeats the one 49 before
                text = " ".join(_WORDS[word] for word in words[place - 49 if repeats and place >= 49 else place])
                row: dict[str, object] = {
                    "instruction": text[:200],
                    "input": "",
                    "output": text[200:],
                    "source": str(sources[place]),
                    **{name: values[place] for name, values in lists.items()},
                    "predicted_log_loss": float(predicted[place]),
                    "truncated": ["embedding"] if number % 5 == 0 else [],
                    "score_notes": {},
                }
                if number % 97 == 0:
                    row["mtld"] = None
                    row["score_notes"] = {"mtld": "no word in the response"}
                file.write(orjson.dumps(row) + b"\n")


def measured(rows: int, folder: Path) -> dict[str, float]:
    """Return bytes, seconds and KiB of the report on so many rows."""
    scored, page = folder / f"{rows}.jsonl", folder / f"{rows}.html"
    write_scored(scored, rows)
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(scored), str(page)], capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    assert page.stat().st_size == found["bytes"]
    found["mb_read"] = scored.stat().st_size / 1e6
    scored.unlink()
    return found


def main() -> None:
    """Print a line per size."""
    sizes = [int(size) for size in sys.argv[1:]] or list(SIZES)
    print(f"{processor()}, {cpu_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        for rows in sizes:
            found = measured(rows, Path(folder))
            print(
                f"{rows:>9,} rows ({found['mb_read']:,.0f} MB): page {found['bytes'] / 1e6:.2f} MB, "
                f"{found['seconds']:.1f} s, {found['kib'] / 1024:,.0f} MiB of memory",
                flush=True,
            )


if __name__ == "__main__":
    main()
