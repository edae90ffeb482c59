"""What the host can feed: a file of real rows to a scored file in a GPU's batches, the models replaced by zeros.

``python benchmarks/host_path.py`` prints JSON. Every round is a process of its own, ours and the peer's in turn; what
is loaded before (imports, tokenizers, the bundle) is outside the clock. The peer is a script of ``datasets.map`` with
batched fast tokenizers, run by the Python given in ``--peer`` (an environment with datasets and transformers).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import host_path_rows
import zeros

from instructmining import Scorer, Statistics, read_examples
from instructmining.bundle import ROLES
from instructmining.inference.batching import Batching
from instructmining.writing.cache import cache_folder
from instructmining.writing.run_writer import RunWriter

INDICATORS = "perplexity,reward,output_length"
OTHER = "ours, in a CPU's small batches"  # a graph's call costs 0.2 ms even where it gives zeros
NO_JOURNAL = "ours, without a journal"
PEER_SETTINGS = ("threads", "processes")  # datasets.map in one process with Rust's threads, or in two without


def ours(bundle: str, rows: str, out: str, indicators: str, kind: str, resumable: str) -> dict[str, Any]:
    """One round, in this process: rows to scored rows through the public names, in batches as for a kind of device."""
    batching = Batching.usual(kind, ROLES)
    with Scorer.open(bundle, indicators=indicators, device="cpu", batching=batching) as scorer:
        counts = Statistics()
        begin, cpu = time.perf_counter(), time.process_time()
        with RunWriter(out, overwrite=True) as writer:
            writer.begin()
            journal = writer.journal if resumable == "yes" else None
            read = read_examples(rows).windows(batching.window_rows)
            for window in scorer.score_windows(read, statistics=counts, journal=journal):
                with counts.timed("write"):
                    writer.write(scorer.rows(window), window.rejects)
                    if journal is not None and journal.due:
                        writer.commit({"statistics": counts.as_json()})
            writer.finish({})
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    search = counts.seconds.get("neighbours", 0.0)  # its cost is no part of the host's
    return {
        "seconds": seconds - search,
        "cpu_seconds": cpu,
        "neighbours_seconds": search,
        "rows": counts.rows_scored,
        "tokens": dict(counts.tokens),
        "stages": {stage: round(spent, 3) for stage, spent in counts.seconds.items()},
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def in_turn(commands: dict[str, list[str]], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Run each command's process once a round, one at a time; each prints JSON."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{name}: {done.stderr.strip()}")
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    return found


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of the rounds; tokens of all roles, padding not counted."""
    seconds = statistics.median(one["seconds"] for one in rounds)
    tokens = sum(rounds[0]["tokens"].values())
    return {
        "seconds": round(seconds, 3),
        "tokens": tokens,
        "tokens_per_second": round(tokens / seconds),
        "rows_per_second": round(rounds[0]["rows"] / seconds, 1),
        "peak_mb": max(one["peak_mb"] for one in rounds),
        "rounds": rounds,
    }


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Ours and, where there is an environment for it, the peer, in interleaved rounds over the same file."""
    here = Path(__file__)
    bundle = options.bundle or max((cache_folder()).glob("demo-*"), key=lambda path: path.stat().st_mtime)
    with TemporaryDirectory(prefix="host-path-") as folder:
        made = zeros.make(Path(bundle), Path(folder) / "zeros")
        rows = host_path_rows.write(Path(folder) / "rows.jsonl", options.rows)
        out = str(Path(folder) / "scored.jsonl")
        own = [sys.executable, str(here), "--round", str(made), str(rows), out, options.indicators]
        commands = {
            "ours": [*own, "cuda", "yes"],
            NO_JOURNAL: [*own, "cuda", "no"],
            OTHER: [*own, "cpu", "yes"],
        }
        if options.peer:
            script = here.with_name("host_path_datasets.py")
            commands |= {
                f"datasets.map, {setting}": [options.peer, str(script), str(made), str(rows), out, setting]
                for setting in PEER_SETTINGS
            }
        found = {name: summary(rounds) for name, rounds in in_turn(commands, options.rounds).items()}
    peers = {name: result for name, result in found.items() if name not in {"ours", NO_JOURNAL, OTHER}}
    journal = zip(found["ours"]["rounds"], found[NO_JOURNAL]["rounds"], strict=True)
    report: dict[str, Any] = {
        "rows": options.rows,
        "indicators": options.indicators,
        "cores": len(os.sched_getaffinity(0)),
        "results": found,
        "journal_share": round(statistics.median(kept["seconds"] / bare["seconds"] - 1 for kept, bare in journal), 4),
    }
    if peers:
        for name, result in peers.items():
            # Of equal texts in a window ours computes and counts one.
            if abs(result["tokens"] / found["ours"]["tokens"] - 1) > 0.01:
                raise SystemExit(f"{name}: {result['tokens']} tokens, ours {found['ours']['tokens']}: other work")
        best = min(peers, key=lambda name: peers[name]["seconds"])
        pairs = zip(found[best]["rounds"], found["ours"]["rounds"], strict=True)
        ratio = statistics.median(theirs["seconds"] / own["seconds"] for theirs, own in pairs)
        report |= {"best_peer": best, "ratio": round(ratio, 2)}
    return report


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", help="folder whose tokenizers and templates are used; by default the demo's")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--indicators", default=f"{INDICATORS},knn_6", help="knn_6 brings in the embedding role")
    parser.add_argument("--peer", help="a Python with datasets and transformers, for the default indicators")
    parser.add_argument(
        "--round", nargs=6, metavar=("BUNDLE", "ROWS", "OUT", "INDICATORS", "KIND", "RESUMABLE"), help="one round alone"
    )
    options = parser.parse_args()
    print(json.dumps(ours(*options.round) if options.round else compare(options), indent=None if options.round else 1))


if __name__ == "__main__":
    main()
