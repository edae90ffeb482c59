"""The machine that measures, and the file of its results: ``python -m benchmarks.machine stages`` prints the path."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from instructmining.inference.devices import Device, cpu_threads
from instructmining_cli.machine.hardware import device_name

ROOT = Path(__file__).parents[1]
_RESULTS = Path(__file__).parent / "results"


def processor() -> str:
    """The processor's name."""
    return device_name(Device("cpu"))


def results_file(kind: str, device: str | None = None) -> Path:
    """``results/<kind>-<device>.json``; the device is by default the processor and its threads."""
    name = f"{kind} {device or f'{processor()} {cpu_threads()} threads'}"
    _RESULTS.mkdir(exist_ok=True)
    return _RESULTS / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.json"


if __name__ == "__main__":
    print(results_file(sys.argv[1]))
