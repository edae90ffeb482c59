"""Everything about CUDA that only a GPU shows: ``python -m benchmarks.gpu STEP`` on a machine with one.

A call ends within its minutes and says what is left; the next call goes on there. ``BENCH_TINY=1`` tries everything in
small, also without a GPU: on a CPU in float32.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
import transformers

from benchmarks.gpu import parts
from benchmarks.gpu.arena import arena_parts
from benchmarks.gpu.attention import attention_parts
from benchmarks.gpu.parity import parity_parts, tf32_parts
from benchmarks.gpu.probe import probe_parts, test_parts
from benchmarks.gpu.report import report
from benchmarks.gpu.speed import speed_parts
from benchmarks.gpu.subjects import TINY
from benchmarks.gpu.whole_file import file_parts

STEPS = {
    "probe": probe_parts,
    "tests": test_parts,
    "parity": parity_parts,
    "attention": attention_parts,
    "tf32": tf32_parts,
    "arena": arena_parts,
    "speed": speed_parts,
    "file": file_parts,
}


def main() -> None:
    given = _arguments()
    if given.step == "report":
        written = report(given.out, given.to)
        print(f"\n{written}" if written else "\nnot written: parts of a trial, or no probe; give --to FILE")
        return
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if TINY:
        torch.set_num_threads(1)  # nothing is measured, and tiny products are not worth a second thread
    chosen = [part for step, build in STEPS.items() if given.step in {step, "all"} for part in build()]
    asked = [name for name in given.only.lower().split(",") if name]
    chosen = [part for part in chosen if not asked or any(name in part.name for name in asked)]
    left = parts.run(chosen, out=given.out, models=given.models or given.out / "models", minutes=given.minutes)
    if left:
        print(f"left: {', '.join(f'{part.step}.{part.name}' for part in left)}")
        if given.strict:
            raise SystemExit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("step", choices=[*STEPS, "all", "report"])
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="folder of the results, a file each part")
    parser.add_argument("--models", type=Path, help="folder that keeps the models; by default OUT/models")
    parser.add_argument("--minutes", type=float, default=7, help="no part runs longer")
    parser.add_argument("--only", default="", help="only parts whose names have one of these in them, commas between")
    parser.add_argument("--strict", action="store_true", help="exit with 1 where a part is left or failed")
    parser.add_argument("--to", type=Path, help="of report: the file to write; by default that of the GPU in results/")
    return parser.parse_args()


if __name__ == "__main__":
    main()
