"""Step ``speed``: our engine and its peers over the same rows, each at its own best batch size, in turns.

Values of all are first compared with transformers in float32. The share of peak counts products with weights for tokens
that are not padding; the peak is the fastest product of onnxruntime in the same process.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.gpu import ways
from benchmarks.gpu.checkpoints import Made, TooLarge, make
from benchmarks.gpu.parity import checked_texts
from benchmarks.gpu.parts import Measure, Part, Place, line
from benchmarks.gpu.peers import VLLM, Sentences, Transformers, installed
from benchmarks.gpu.rows import seeded_texts
from benchmarks.gpu.subjects import SUBJECTS, TINY, Subject
from benchmarks.gpu.ways import Way
from instructmining.errors import DeviceError
from instructmining.inference.batching import Batch
from instructmining.inference.devices import Device
from instructmining.inference.executor import Executor
from instructmining.inference.references import References
from instructmining.inference.sessions import Acceleration
from instructmining.tokenizing.truncation import Tokens
from instructmining_cli.machine.peaks import product_peak

ROWS = int(os.environ.get("BENCH_ROWS", "24" if TINY else "2048"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "2" if TINY else "3"))
BUDGETS = (256, 512) if TINY else (4096, 8192, 16384, 32768, 65536)  # padded tokens of a batch
# Of a row's value, in standard deviations of the rows' values; 1 - cosine of embeddings.
BOUNDS = {"fp32": 1e-3, "fp16": 5e-2}


def speed_parts() -> list[Part]:
    parts = [Part("speed", subject.slug, _speed(subject), 150 if subject.gigabytes else 60) for subject in SUBJECTS]
    if installed("vllm"):
        likely = [subject for subject in SUBJECTS if subject.output == "nll"]
        parts += [Part("speed", f"{subject.slug}.vllm", _vllm(subject), 120) for subject in likely]
    return parts


def _speed(subject: Subject) -> Measure:
    def measure(place: Place) -> Iterator[Mapping[str, Any]]:
        texts = _texts(subject)
        entry = _entry(subject, texts)
        try:
            made = make(subject, place.models, place.device, place.precision)
        except TooLarge as error:
            yield entry | {"skipped": str(error)}
            return
        wanted = ways.references(subject, made.folder, checked_texts(subject), place.device)
        entry["peak_multiply_adds_s"] = product_peak(
            place.device, place.precision, shapes=((64, 64),) if TINY else None
        ).multiply_adds_per_s
        yield entry
        with ExitStack() as opened:
            right = [way for way in _ways(subject, made, place, entry, opened) if _right(way, wanted, entry, place)]
            yield entry
            for way in right:
                _choose_budget(way, texts[::4], entry)
                yield entry
            timed = [way for way in right if way.budget]
            for number in range(ROUNDS):
                turn = number % max(len(timed), 1)
                for way in timed[turn:] + timed[:turn]:
                    with _watched(entry, way.name, place.device):
                        entry["seconds"].setdefault(way.name, []).append(way.seconds(texts))
                _summarize(entry, texts, made.multiply_adds)
                yield entry

    return measure


def _texts(subject: Subject) -> list[Tokens]:
    rows = ROWS // 4 if subject.gigabytes else ROWS
    return seeded_texts(rows, words=subject.words, max_length=subject.max_length)


def _entry(subject: Subject, texts: Sequence[Tokens]) -> dict[str, Any]:
    """Results by way: largest difference, tokens/s by budget, seconds of each round, use of the device, failures."""
    counts = {"tokens": sum(len(text.ids) for text in texts), "scored": sum(len(text.scored) for text in texts)}
    kinds = ("differences", "budgets", "seconds", "busy", "gpu", "failures")
    return {"model": subject.name, "rows": len(texts), **counts, **{kind: {} for kind in kinds}}


def _ways(subject: Subject, made: Made, place: Place, entry: dict[str, Any], opened: ExitStack) -> list[Way]:
    """Our executor plain and with CUDA graphs; transformers by kind of attention and packed; sentence-transformers."""
    kinds = {"ours": Acceleration()}
    if place.device.kind == "cuda" and not subject.gigabytes:
        kinds["ours, CUDA graphs"] = Acceleration(cuda_graphs=True)
    found = []
    for name, acceleration in kinds.items():
        try:
            executor = opened.enter_context(Executor([made.graph], [place.device], acceleration))
        except DeviceError as error:
            entry["failures"][name] = line(error)
            continue
        found.append(ways.executor_way(name, subject, executor, made.graph, entry["busy"].setdefault(name, [])))
    dtype = torch.float16 if place.precision == "fp16" else torch.float32
    shared: dict[str, Any] = {"device": place.device.kind, "dtype": dtype}
    peers: dict[str, Any] = {"transformers sdpa": lambda: Transformers(subject, made.folder, **shared)}
    if subject.output == "nll":
        peers["transformers sdpa, packed"] = lambda: Transformers(subject, made.folder, packed=True, **shared)
    if not subject.decoder:  # DeBERTa has no other
        peers["transformers eager"] = lambda: Transformers(subject, made.folder, attention="eager", **shared)
    if subject.output == "embedding" and installed("sentence_transformers"):
        peers["sentence-transformers"] = lambda: Sentences(subject, made.folder, **shared)
    for name, load in peers.items():
        try:
            step = load()
        except Exception as error:  # a family without this attention, too little memory, another version
            entry["failures"][name] = line(error)
            continue
        found.append(Way(name, subject, partial(map, step)))
    return found


def _right(way: Way, wanted: References, entry: dict[str, Any], place: Place) -> bool:
    """Whether a way gives the right values; it is warm then."""
    output = wanted.output
    try:
        found = ways.by_row(way.subject.output, way.run(wanted.texts, BUDGETS[0]))
    except Exception as error:  # torch and onnxruntime have classes of their own for a graph that does not run
        entry["failures"][way.name] = line(error)
        return False
    off = ways.difference(way.subject.output, found, ways.wanted_by_row(wanted))
    entry["differences"][way.name] = off
    if not off <= BOUNDS[place.precision]:
        entry["failures"][way.name] = f"its {output} is off by {off:.1g}"
        return False
    return True


def _choose_budget(way: Way, texts: Sequence[Tokens], entry: dict[str, Any]) -> None:
    """The fastest batch size that fits, over every fourth row; none larger once two in a row are slower."""
    speeds: dict[int, float] = entry["budgets"].setdefault(way.name, {})
    tokens = sum(len(text.ids) for text in texts)
    for budget in BUDGETS:
        try:
            way.run(texts, budget)  # warm: shapes are new
            speeds[budget] = round(tokens / min(way.seconds(texts, budget) for _ in range(2)), 1)
        except Exception as error:  # torch and onnxruntime have classes of their own for too little memory
            entry["failures"][f"{way.name}, {budget} tokens"] = line(error)
            ways.free()
            break
        if len(speeds) > 2 and max(list(speeds.values())[-2:]) < max(speeds.values()):
            break
    if speeds:
        way.budget = max(speeds, key=lambda budget: speeds[budget])


def _summarize(entry: dict[str, Any], texts: Sequence[Tokens], multiply_adds: Mapping[str, int]) -> None:
    medians = {way: statistics.median(seconds) for way, seconds in entry["seconds"].items()}
    work = sum(
        multiply_adds["token"] * len(text.ids) + multiply_adds["scored"] * len(text.scored) + multiply_adds["row"]
        for text in texts
    )
    peak = entry["peak_multiply_adds_s"]
    entry["tokens_s"] = {way: round(entry["tokens"] / seconds, 1) for way, seconds in medians.items()}
    entry["rows_s"] = {way: round(len(texts) / seconds, 1) for way, seconds in medians.items()}
    entry["share_of_peak"] = {way: round(work / seconds / peak, 4) for way, seconds in medians.items()}
    sides = [[way for way in medians if way.startswith("ours") == ours] for ours in (True, False)]
    if all(sides):
        ours, peer = (min(side, key=lambda way: medians[way]) for side in sides)
        pairs = zip(entry["seconds"][peer], entry["seconds"][ours], strict=True)
        entry["ratio"] = {"ours": ours, "peer": peer, "times": statistics.median(two / one for two, one in pairs)}


@contextmanager
def _watched(entry: dict[str, Any], way: str, device: Device) -> Iterator[None]:
    """What the driver says of the device meanwhile."""
    if device.kind != "cuda" or shutil.which("nvidia-smi") is None:
        yield
        return
    query = ["nvidia-smi", f"--id={device.index}", "--query-gpu=utilization.gpu,memory.used"]
    query += ["--format=csv,noheader,nounits", "-lms", "200"]
    with subprocess.Popen(query, stdout=subprocess.PIPE, text=True) as watching:
        try:
            yield
        finally:
            watching.terminate()
            lines = watching.communicate()[0].splitlines()
    numbers = np.array([[float(part) for part in row.split(",")] for row in lines if re.fullmatch(r"[\d, ]+", row)])
    if len(numbers):
        entry["gpu"][way] = {"use_percent": float(numbers[:, 0].mean()), "memory_mib": float(numbers[:, 1].max())}


def _vllm(subject: Subject) -> Measure:
    def measure(place: Place) -> Iterator[Mapping[str, Any]]:
        texts = _texts(subject)
        entry = _entry(subject, texts)
        made = make(subject, place.models, place.device, place.precision)
        wanted = ways.references(subject, made.folder, checked_texts(subject), place.device)
        model = VLLM(subject, made.folder)

        def step(work: Sequence[Batch]) -> Iterator[Any]:
            return model(work)

        way = Way("vLLM", subject, step, budget=BUDGETS[-1])
        if _right(way, wanted, entry, place):
            way.run(texts)  # warm
            for _ in range(ROUNDS):
                entry["seconds"].setdefault(way.name, []).append(way.seconds(texts))
            entry["tokens_s"] = {way.name: round(entry["tokens"] / statistics.median(entry["seconds"][way.name]), 1)}
        yield entry

    return measure
