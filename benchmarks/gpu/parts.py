"""Runs parts of a step, each in a process of its own, until the minutes are used up; keeps each part's results.

A part that was measured is skipped in the next call; one that failed or was cut is tried again, but a crash or
too little memory in it costs no other part.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from benchmarks.gpu.subjects import TINY
from instructmining.bundle import PrecisionName
from instructmining.inference.devices import Device, choose_devices, cuda_problem

# Yields its results as they grow; each replaces the one before.
Measure: TypeAlias = Callable[["Place"], Iterator[Mapping[str, Any]]]
_RESERVE_S = 10  # before the end of the minutes, for a part to be ended and results to be packed


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part runs and keeps its models."""

    device: Device
    models: Path
    earlier: Mapping[str, Any]  # results of this part from a call that was cut

    @property
    def precision(self) -> PrecisionName:
        """Of the graphs: float16 on a GPU."""
        return "fp16" if self.device.kind == "cuda" else "fp32"


@dataclass(frozen=True, slots=True)
class Part:
    """What is measured and kept as one."""

    step: str
    name: str
    measure: Measure
    about_s: int = 30  # not begun with less time left

    def file(self, out: Path) -> Path:
        """The file of its results."""
        return out / f"{self.step}.{self.name}.json"


def run(parts: Sequence[Part], *, out: Path, models: Path, minutes: float) -> list[Part]:
    """Measure the parts that have no results yet; returns those left."""
    end = time.monotonic() + 60 * minutes - (0 if TINY else _RESERVE_S)
    out.mkdir(parents=True, exist_ok=True)
    left = []
    for part in parts:
        file = part.file(out)
        found = _read(file)
        if found.get("complete"):
            print(f"{file.name}: there already", flush=True)
            continue
        remaining = end - time.monotonic()
        if remaining < (0 if TINY else part.about_s):
            left.append(part)
            continue
        begin = time.monotonic()
        ended = _apart(part, file, models, found, remaining)
        found = _read(file)
        if not found.get("complete"):
            left.append(part)
        why = "" if ended else ", cut"
        print(f"{file.name}: {time.monotonic() - begin:.0f} s{why}{_failure(found)}", flush=True)
    return left


def _failure(found: Mapping[str, Any]) -> str:
    return f", failed: {found['failed']}" if isinstance(found.get("failed"), str) else ""


def _apart(part: Part, file: Path, models: Path, earlier: Mapping[str, Any], seconds: float) -> bool:
    """Run a part in a process; returns whether it ended by itself in time."""
    # Forked, so that torch and transformers are imported once. This process never starts CUDA.
    process = multiprocessing.get_context("fork").Process(target=_measure, args=(part, file, models, earlier))
    process.start()
    process.join(seconds)
    if process.is_alive() and process.pid is not None:
        os.killpg(process.pid, signal.SIGKILL)  # with what it started
        process.join()
        return False
    if process.exitcode:
        write(file, {**_read(file), "failed": f"its process ended with exit code {process.exitcode}"})
    return True


def _measure(part: Part, file: Path, models: Path, earlier: Mapping[str, Any]) -> None:
    os.setpgid(0, 0)
    results: Mapping[str, Any] = {}
    begin = time.monotonic()
    try:
        device = choose_devices("cpu" if TINY and cuda_problem() else "cuda")[0]
        place = Place(device, models, earlier)
        for results in part.measure(place):
            write(file, _named(results, device, begin))
    except Exception as error:  # each library has classes of its own; the other parts go on
        traceback.print_exc(limit=-2, file=sys.stderr)
        write(file, {**results, "failed": line(error)})
        return
    write(file, {**_named(results, device, begin), "complete": True})


def _named(results: Mapping[str, Any], device: Device, begin: float) -> dict[str, Any]:
    return {**results, "device": str(device), "tiny": TINY, "part_s": round(time.monotonic() - begin, 1)}


def write(file: Path, results: Mapping[str, Any]) -> None:
    """Replace the file as a whole."""
    new = file.with_suffix(".tmp")
    new.write_bytes(
        orjson.dumps(results, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)
    )
    new.replace(file)


def _read(file: Path) -> dict[str, Any]:
    return dict(orjson.loads(file.read_bytes())) if file.exists() else {}


def line(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
