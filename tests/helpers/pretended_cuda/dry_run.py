"""Has ``worker.py`` do tasks on the pretended GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from pretended_cuda.build import HERE, build

Task: TypeAlias = Mapping[str, Any]
Found: TypeAlias = Mapping[str, Any]


def dry_run(tasks: Iterable[Task], folder: Path) -> list[Found]:
    """Return what was found for each task, in order.

    Args:
        tasks: as the functions of ``worker.py`` take them, and the "kind" of each.
        folder: for the libraries and the logs; empty.

    Raises:
        RuntimeError: the worker ended before its last task, with what it said.
    """
    libraries = folder / "libraries"
    libraries.mkdir()
    build(libraries)
    files = {name: folder / name for name in ("tasks", "results", "log", "printed")}
    lines = [json.dumps(task) for task in tasks]
    files["tasks"].write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    settings = {
        "LD_LIBRARY_PATH": str(libraries),
        "ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO": "1",
        "PRETENDED_CUDA_LOG": str(files["log"]),
        "PRETENDED_CUDA_PRINTED": str(files["printed"]),
    }
    with files["printed"].open("wb") as printed:
        command = [sys.executable, str(HERE / "worker.py"), str(files["tasks"]), str(files["results"])]
        done = subprocess.run(
            command, env=os.environ | settings, stdout=printed, stderr=subprocess.PIPE, text=True, check=False
        )
    results = files["results"].read_text(encoding="utf-8").splitlines() if files["results"].exists() else []
    if done.returncode or len(results) < len(lines):
        at = lines[min(len(results), len(lines) - 1)][:200]
        raise RuntimeError(f"the dry run ended with {done.returncode} at {at}: {done.stderr[-2000:]}")
    return [json.loads(result) for result in results]
