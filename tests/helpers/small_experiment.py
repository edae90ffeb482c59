"""An experiment of a few short rows on a model of two layers, for tests of training and evaluation."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from instructmining.bundle.digests import sha256_of
from instructmining_experiments.state.plan import EvaluationSet, Plan, PoolFile, Run
from instructmining_experiments.state.pool import SCORED

_THINGS = ("colour", "train", "ferry", "bread", "dough", "yeast", "dialogue", "response")
SPOILT_FROM = 64  # rows of the pool from here on have their letters shuffled
ROWS = 96


@dataclass(frozen=True)
class Small:
    """A plan with its pool in a folder."""

    folder: Path
    plan: Plan

    def with_runs(self, *runs: Run) -> Small:
        """The same pool with other runs."""
        plan = replace(self.plan, runs=runs)
        plan.save(self.folder)
        return Small(self.folder, plan)


def write_experiment(folder: Path) -> Small:
    """Two random runs, and a replicate of the first; two evaluation sets of whole rows."""
    folder.mkdir(parents=True)
    rows = [_row(number) for number in range(ROWS)]
    (folder / SCORED).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    plan = Plan(
        seed=1,
        bundle="b" * 64,
        scored_sha256=sha256_of(folder / SCORED),
        files=(PoolFile("pool.jsonl", "c" * 64, ROWS),),
        subset_tokens=300,
        indicators=("output_length", "perplexity"),
        evaluation=(
            EvaluationSet("held_out", "pool.jsonl", tuple(range(8))),
            EvaluationSet("other", "other.jsonl", tuple(range(8, 12))),
        ),
        reserved=(12, 13),
        left_out=(),
        runs=(run("r001", range(16, 28), 5), run("r002", range(28, 40), 6), run("r003", range(16, 28), 7, "r001")),
    )
    plan.save(folder)
    return Small(folder, plan)


def run(name: str, rows: Sequence[int], seed: int, replicates: str | None = None) -> Run:
    """A run on some rows."""
    return Run(name, "random" if replicates is None else "replicate", tuple(rows), seed, 300, replicates)


def _row(number: int) -> dict[str, object]:
    rng = random.Random(number)
    one, other = rng.sample(_THINGS, 2)
    words = f"The {one} is a {one} and so are the {one} and the {other} .".split() * rng.randint(1, 2)
    text = " ".join(words)
    if number >= SPOILT_FROM:
        text = "".join(rng.sample(text, len(text)))
    return {
        "instruction": f"Name a {one} and a {other}.",
        "input": "",
        "output": text,
        "input_length": 12,
        "output_length": len(words) + number % 3,
        "perplexity": 1.0 + number,
        "truncated": [],
        "score_notes": {},
    }
