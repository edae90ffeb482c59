"""Long runs: their memory must not grow. Not part of the short tests; ``make faults`` runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import BinaryIO

import psutil
import pytest

ROWS = int(os.environ.get("FAULT_ROWS", "2000000"))
FEW_ROWS = ROWS // 20
LONG_ROWS = int(os.environ.get("FAULT_LONG_ROWS", "250"))
SOAK_S = float(os.environ.get("FAULT_SOAK_S", "1200"))
MEBIBYTE = 2**20
INDICATORS = "perplexity,reward,mtld,input_length,output_length"


def row(number: int) -> bytes:
    """A short row that no other is equal to."""
    value = {"instruction": f"Name colour {number}.", "input": "", "output": f"Green, or {number % 977} others."}
    return json.dumps(value).encode() + b"\n"


def resident(process: psutil.Process) -> Iterator[int]:
    """MiB resident now, until the process ends."""
    try:
        while True:
            yield process.memory_info().rss // MEBIBYTE
    except psutil.NoSuchProcess:
        return


def score(bundle: Path, source: str, out: Path, indicators: str = INDICATORS) -> subprocess.Popen[bytes]:
    code = "from instructmining_cli.main import main; main()"
    command = [sys.executable, "-c", code, "score", source, "-o", str(out), "--bundle", str(bundle)]
    command += ["--indicators", indicators, "--device", "cpu"]
    return subprocess.Popen(command, stdin=subprocess.PIPE if source == "-" else subprocess.DEVNULL)


def peak_of_run(bundle: Path, rows: int, folder: Path) -> int:
    """MiB that a run over so many rows had at most."""
    source, out = folder / f"{rows}.jsonl", folder / f"{rows}.out.jsonl"
    with source.open("wb") as file:
        for number in range(rows):
            file.write(row(number))
    process = score(bundle, str(source), out)
    peak = 0
    for now in resident(psutil.Process(process.pid)):
        peak = max(peak, now)
        if process.poll() is not None:
            break
        time.sleep(0.2)
    assert process.returncode == 0
    with out.open("rb") as file:
        assert sum(1 for _ in file) == rows
    source.unlink()
    out.unlink()
    return peak


@pytest.mark.faults
def test_memory_does_not_grow_with_the_rows(small_bundle: Path, tmp_path: Path) -> None:
    few, many = (peak_of_run(small_bundle, rows, tmp_path) for rows in (FEW_ROWS, ROWS))
    print(f"peak memory: {FEW_ROWS:,} rows {few} MiB, {ROWS:,} rows {many} MiB")  # noqa: T201 - the result
    assert many - few < 150


@pytest.mark.faults
@pytest.mark.parametrize("indicators", ["output_length,mtld", INDICATORS])
def test_memory_is_bounded_by_bytes_not_rows(small_bundle: Path, tmp_path: Path, indicators: str) -> None:
    source, out = tmp_path / "long.jsonl", tmp_path / "out.jsonl"
    with source.open("wb") as file:
        for number in range(LONG_ROWS):
            said = f"Green{number} or others. " * (8_000_000 // 22)
            file.write(json.dumps({"instruction": f"Name colour {number}.", "output": said}).encode() + b"\n")
    process = score(small_bundle, str(source), out, indicators)
    peak = 0
    for now in resident(psutil.Process(process.pid)):
        peak = max(peak, now)
        if process.poll() is not None:
            break
        time.sleep(0.05)
    print(f"peak memory: {LONG_ROWS} rows of 8 MB, {indicators}: {peak} MiB")  # noqa: T201 - the result
    assert process.returncode == 0
    assert peak < 900


@pytest.mark.faults
def test_memory_is_flat_in_a_long_run(small_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    process = score(small_bundle, "-", out)
    assert process.stdin is not None
    fed = 0

    def feed(stream: BinaryIO) -> None:
        nonlocal fed
        end = time.monotonic() + SOAK_S
        for number in count():
            if number % 1000 == 0 and time.monotonic() > end:
                break
            stream.write(row(number))
            fed += 1
        stream.close()

    feeder = threading.Thread(target=feed, args=(process.stdin,))
    feeder.start()
    samples: list[int] = []
    for now in resident(psutil.Process(process.pid)):
        samples.append(now)
        if process.poll() is not None:
            break
        time.sleep(SOAK_S / 400)
    feeder.join()
    assert process.returncode == 0
    with out.open("rb") as file:
        assert sum(1 for _ in file) == fed
    quarters = [max(samples[len(samples) * part // 4 : len(samples) * (part + 1) // 4]) for part in range(4)]
    print(f"{fed:,} rows in {SOAK_S:,.0f} s; most resident by quarter: {quarters} MiB")  # noqa: T201 - the result
    assert quarters[3] - quarters[0] < 20
