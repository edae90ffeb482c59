"""The stock exports of one checkpoint, in an environment of its own: ``python stock.py FOLDER OUT TASK LEVELS``.

Optimum takes earlier versions of transformers only, so this runs apart. It writes one folder a level into OUT and
says in one line of JSON what came of it: ``{"versions": {…}, "levels": {level: {"seconds": …, "files": […]}}}``, with
``{"error": "…"}`` for a level where the export fails. Levels, with commas between, are those of onnxruntime's optimizer
for transformers, O1 to O4, and ``O0`` for none.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

from optimum.exporters.onnx import main_export

PACKAGES = ("optimum-onnx", "optimum", "transformers", "torch", "onnx", "onnxruntime-gpu")


def export(folder: str, out: Path, task: str, level: str) -> dict[str, object]:
    """Export as optimum-cli does it, but for its comparison with the model; imports are outside the clock."""
    begin = time.perf_counter()
    try:
        main_export(
            folder,
            output=out,
            task=task,
            optimize=None if level == "O0" else level,
            library_name="transformers",  # else a sentence encoder is taken for sentence-transformers
            device="cpu",
            do_validation=False,
            local_files_only=True,
        )
    except Exception as error:  # whatever it is, it is the result
        line = (str(error).strip() or "no message").splitlines()[0]
        return {"error": f"{type(error).__name__}: {line}"}
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "files": sorted(str(path) for path in out.glob("*.onnx"))}


def main(folder: str, out: str, task: str, levels: str) -> dict[str, object]:
    """All levels of one checkpoint."""
    found = {level: export(folder, Path(out) / level, task, level) for level in levels.split(",")}
    return {"versions": {name: version(name) for name in PACKAGES}, "levels": found}


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        told = main(*sys.argv[1:])
    print(json.dumps(told))
