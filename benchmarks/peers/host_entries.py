"""The rows of the table without a model, and those of whole processes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import seeded
from benchmarks.peers.comparing import against
from benchmarks.peers.lines import Entry, Line, Run, check_close
from benchmarks.peers.rounds import Side, Timed, WorkerError, found_settings, in_turn, opened, processes_in_turn, ratio

WITHIN = 1e-4
VECTOR_ROUNDS = 3  # of minutes each
HOST_ROUNDS = 3
IFD_ROWS = 64
IFD_ROUNDS = 2
HELP_ROUNDS = 9
MEMORY_MB = 1000
HOST = "host path, models give zeros"
HOST_INDICATORS = "perplexity,reward,output_length,knn_6"
# wana's command takes four threads; this is the same command with as many as there are cores.
WANA = (
    "import sys; from wana.adapters.logprob.bundled import BundledLogProbProvider as P; "
    "P.__init__.__kwdefaults__['threads'] = int(sys.argv.pop(1)); from wana.cli.main import main; sys.exit(main())"
)


def mtld(run: Run) -> Entry:
    """MTLD of seeded responses."""
    name, rows = "lexicalrichness", {"rows": str(run.material.seeded_rows)}
    entry = Entry("mtld")
    sides = [Side("ours", "ours", "ours", "mtld", rows), Side(name, "python", "words", "mtld", rows)]
    with opened(sides, run.pythons) as (workers, missing):
        timed = found_settings(workers, search=bool(run.rounds))
        if name in timed:
            entry.facts["largest difference"] = check_close(name, timed["ours"].values, timed[name].values, 1e-9)
        in_turn(workers, timed, 3 * run.rounds)
    entry.timed = list(timed.values())
    if name in missing or not run.rounds:
        entry.lines = [Line("mtld", name, None, 1.4, note=missing.get(name, "numbers checked, not timed"))]
        return entry
    ours, theirs = timed["ours"], timed[name]
    note = f"{seeded.ROWS / ours.median:,.0f} rows/s against {seeded.ROWS / theirs.median:,.0f}"
    entry.lines = [Line("mtld", name, ratio(theirs.seconds, ours.seconds), 1.4, note=note)]
    return entry


def knn(run: Run) -> Entry:
    """Distances to the sixth nearest other row; pynndescent's are approximate, and how many it found is said."""
    shared = {"vectors": str(run.material.vectors_file), "threads": run.material.threads}
    what = f"knn_6 exact, {run.material.vectors:,} x 384"
    peers = ("pynndescent", "scikit-learn")
    sides = [Side("ours", "ours", "ours", "neighbours", shared)]
    sides += [Side(name, "python", "vectors", name, shared) for name in peers]
    entry = Entry("knn")
    with opened(sides, run.pythons) as (workers, missing):
        timed = found_settings(workers, search=bool(run.rounds))
        if "scikit-learn" in timed:
            entry.facts["largest difference, scikit-learn"] = check_close(
                "scikit-learn", timed["ours"].values, timed["scikit-learn"].values, WITHIN
            )
        if "pynndescent" in timed:
            found, exact = np.array(timed["pynndescent"].values), np.array(timed["ours"].values)
            entry.facts["share exact, pynndescent"] = float((found <= exact + WITHIN).mean())
        for of in timed.values():
            of.values = []  # looked at
        in_turn(workers, timed, min(run.rounds, VECTOR_ROUNDS))
    entry.timed = list(timed.values())
    for name in peers:
        if name in missing or not run.rounds:
            entry.lines.append(Line(what, name, None, 3.0, note=missing.get(name, "numbers checked, not timed")))
            continue
        peer, ours = timed[name], timed["ours"]
        note = f"{peer.median:.3g} s against {ours.median:.3g} s; its memory {peer.peak_mb or 0:.0f} MB"
        if name == "pynndescent":
            note += f"; {100 * entry.facts['share exact, pynndescent']:.1f} % of its distances are exact"
        entry.lines.append(Line(what, name, ratio(peer.seconds, ours.seconds), 3.0, note=note))
    if run.rounds:
        memory = timed["ours"].peak_mb
        entry.lines.append(Line(f"{what}, memory", "", memory, MEMORY_MB, "MB", at_most=True))
    return entry


def start(run: Run) -> Entry:
    """From the start of a process: to the end of ``--help``, and to the first scored row."""
    command, entry = [_instructmining()], Entry("start")
    shown = processes_in_turn({"help": [*command, "--help"]}, HELP_ROUNDS)["help"]
    rows = run.material.first_rows(8)
    score = [*command, "score", str(rows), "-o", "-", "--bundle", str(run.material.bundle), "--device", "cpu"]
    score += ["--indicators", "perplexity,reward", "--limit", "1"]
    _until_first_line(score)  # what is on the disk, and the compiled modules, are there from here on
    first = Timed("first row", {}, seconds=[_until_first_line(score) for _ in range(max(3, run.rounds))])
    entry.timed = [shown, first]
    entry.lines = [
        Line("instructmining --help", "", shown.median, 0.3, "s", at_most=True),
        Line("first score after process start", "", first.median, 4.0, "s", at_most=True, note="demo bundle"),
    ]
    return entry


def ifd(run: Run) -> Entry:
    """IFD over a file, a whole process each; wana's definition differs in the first token of the bare response."""
    material, entry = run.material, Entry("ifd")
    count = min(IFD_ROWS, material.rows)
    rows = material.first_rows(count)
    bundles = {"fp32": material.bundle, "int8": material.int8_bundle}
    outs = {name: material.folder / f"ifd-{name}.jsonl" for name in (*bundles, "wana")}
    commands = {
        name: [
            *(_instructmining(), "score", str(rows), "-o", str(outs[name]), "--bundle", str(bundle), "--overwrite"),
            *("--indicators", "ifd", "--device", "cpu"),
        ]
        for name, bundle in bundles.items()
    }
    targets = (("fp32", 4.0), ("int8", 6.5))
    python = run.pythons.get("wana")
    if python is None:
        note = "no environment wana: make peers"
        entry.lines = [
            Line(f"IFD of a file, {name}", "wana 0.5.1", None, target, note=note) for name, target in targets
        ]
        return entry
    theirs = ["score", str(rows), "-o", str(outs["wana"])]
    ways = {
        "wana, its 4 threads": [str(python), "-m", "wana", *theirs],
        f"wana, {material.threads} threads": [str(python), "-c", WANA, str(material.threads), *theirs],
    }
    tried = {name: processes_in_turn({name: command}, 1)[name] for name, command in ways.items()}
    best = min(tried, key=lambda name: tried[name].median)
    timed = processes_in_turn({best: ways[best], **commands}, min(run.rounds, IFD_ROUNDS))
    timed[best].searched = [{"way": name, "seconds": of.median} for name, of in tried.items()]
    entry.timed = list(timed.values())
    theirs_ifd = _ifd_of(outs["wana"], lambda row: row["wana"]["scores"]["ifd"])
    for name, target in targets:
        correlation = _rank_correlation(_ifd_of(outs[name], lambda row: row["ifd"]), theirs_ifd)
        entry.facts[f"rank correlation, {name}"] = correlation
        note = (
            f"{timed[best].median:.3g} s against {timed[name].median:.3g} s; its best: {best}; "
            f"rank correlation {correlation:.4f}"
        )
        found = ratio(timed[best].seconds, timed[name].seconds)
        entry.lines.append(Line(f"IFD of a file of {count} rows, {name}", "wana 0.5.1", found, target, note=note))
    return entry


def host(run: Run) -> Entry:
    """File to file with models that give zeros, in a GPU's batches; ours without the search for neighbours."""
    name, material, entry = "datasets.map", run.material, Entry("host")
    rows = material.distinct_rows(20_000 if material.rows >= 48 else 2_000)
    shared = {"bundle": str(material.zeros), "rows": str(rows)}
    ours = {"out": str(material.folder / "host.jsonl"), "indicators": HOST_INDICATORS, "batches_of": "cuda"}
    theirs = {"out": str(material.folder / "host-datasets.jsonl")}
    sides = [
        Side("ours", "ours", "ours", "job", shared | ours),
        Side(name, "datasets", "datasets_map", "host", shared | theirs),
    ]
    with opened(sides, run.pythons) as (workers, missing):
        timed = found_settings(workers, search=bool(run.rounds))
        in_turn(workers, timed, min(run.rounds, HOST_ROUNDS))
    entry.timed = list(timed.values())
    if run.rounds:
        own = timed["ours"]
        tokens, count = own.facts[0]["tokens"], own.facts[0]["rows"]
        if name in timed:  # of equal texts in a window ours computes and counts one
            check_close(f"{name}, tokens", [timed[name].facts[0]["tokens"] / tokens], [1], 0.01)
        own.seconds = [
            seconds - facts["stages"]["neighbours"] for seconds, facts in zip(own.seconds, own.facts, strict=True)
        ]
        note = f"{count / own.median:,.0f} rows/s"
        entry.lines = [Line(HOST, "", tokens / own.median / 1e6, 1.0, "M tokens/s", note=note)]
    entry.lines += against(run, HOST, timed, ((name, 2.0),), missing)
    return entry


def _instructmining() -> str:
    return str(Path(sys.executable).with_name("instructmining"))


def _until_first_line(command: list[str]) -> float:
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        line = process.stdout.readline()
        seconds = time.perf_counter() - begin
        error = process.stderr.read().decode(errors="replace").strip()
    if not line:
        raise WorkerError(f"instructmining score: {error}")
    return seconds


def _ifd_of(path: Path, ifd_in: Callable[[dict[str, dict[str, dict[str, float]]]], object]) -> list[float]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [float(str(ifd_in(row))) for row in rows]


def _rank_correlation(found: list[float], other: list[float]) -> float:
    ranks = [np.argsort(np.argsort(values)) for values in (found, other)]
    return float(np.corrcoef(*ranks)[0, 1])
