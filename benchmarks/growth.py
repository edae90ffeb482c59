"""How cost grows: with the rows of a file (models give zeros) and with the length of a text (perplexity, this device).

``python benchmarks/growth.py [--rows 1000,10000,100000] [--lengths 64,128,…]`` prints both as Markdown tables. A row of
the first is one process; of the second the median of three passes over texts of one length, 2,048 tokens in all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import host_path_rows
import numpy as np
import zeros

from instructmining.bundle import Bundle
from instructmining.inference.batching import batches
from instructmining.inference.devices import choose_devices
from instructmining.inference.sessions import GraphSession
from instructmining.tokenizing.truncation import Tokens
from instructmining_cli.run.demo_bundle import demo_bundle

INDICATORS = "perplexity,reward,output_length,mtld"
TOKENS = 2048


def with_rows(bundle: Path, counts: list[int]) -> None:
    """Seconds and memory of the whole host path by the number of rows."""
    print("| rows | seconds | rows/s | processor seconds | peak memory, MB |\n|---|---|---|---|---|")
    with TemporaryDirectory(prefix="growth-") as folder:
        made = zeros.make(bundle, Path(folder) / "zeros")
        for count in counts:
            rows = host_path_rows.write(Path(folder) / "rows.jsonl", count)
            command = [sys.executable, str(Path(__file__).with_name("host_path.py")), "--round", str(made), str(rows)]
            done = subprocess.run(
                [*command, str(Path(folder) / "scored.jsonl"), INDICATORS, "cuda", "yes"],
                capture_output=True,
                text=True,
                check=True,
            )
            found = json.loads(done.stdout.splitlines()[-1])
            seconds = found["seconds"]
            print(
                f"| {count:,} | {seconds:.1f} | {count / seconds:,.0f} | {found['cpu_seconds']:.1f} "
                f"| {found['peak_mb']} |",
                flush=True,
            )


def with_length(bundle: Path, lengths: list[int]) -> None:
    """Speed of the perplexity graph by the length of the texts, all of whose tokens but the first are scored."""
    role = Bundle.open(bundle).roles["perplexity"]
    session = GraphSession(role.graph, choose_devices("auto", batches_at_once=1)[0])
    rng = np.random.default_rng(0)
    print("\n| tokens of a text | tokens/s | beside the shortest |\n|---|---|---|")
    first = None
    for length in lengths:
        texts = [
            Tokens(rng.integers(1000, 40000, length), np.arange(1, length)) for _ in range(max(1, TOKENS // length))
        ]
        work = list(batches(texts, max_batch_tokens=512))
        seconds = []
        for _ in range(4):
            begin = time.perf_counter()
            for batch in work:
                session.run(batch, ["nll"])
            seconds.append(time.perf_counter() - begin)
        speed = length * len(texts) / statistics.median(seconds[1:])
        first = first or speed
        print(f"| {length:,} | {speed:,.0f} | {speed / first:.2f} |", flush=True)


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="1000,10000,100000")
    parser.add_argument("--lengths", default="64,128,256,512,1024,2048")
    options = parser.parse_args()
    bundle = demo_bundle(lambda text: print(text, file=sys.stderr))
    for measure, sizes in ((with_rows, options.rows), (with_length, options.lengths)):
        if sizes:
            measure(bundle, [int(size) for size in sizes.split(",")])


if __name__ == "__main__":
    main()
