"""Plans and ``runs.csv`` of runs that nobody trained, for tests of what is fitted to them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from instructmining_experiments.state.plan import EvaluationSet, Plan, PoolFile, Run

INDICATORS = ("output_length", "perplexity", "reward", "ifd")
_MEANS, _SPREADS = (100.0, 8.0, 1.0, 0.7), (10.0, 1.0, 0.3, 0.05)


def plan_of(
    subsets: int,
    *,
    replicates: int = 0,
    seed: int = 0,
    indicators: Sequence[str] = INDICATORS,
    reward: str | None = None,
) -> Plan:
    """A plan of random and tilted subsets in turn, and replicates of the first ones."""
    runs = [Run(f"r{at + 1:03d}", "tilted" if at % 2 else "random", (2 + at,), 100 + at, 500) for at in range(subsets)]
    again = [Run(f"{run.name}-2", "replicate", run.rows, run.seed + 1000, 500, run.name) for run in runs[:replicates]]
    return Plan(
        seed=seed,
        bundle="b" * 64,
        scored_sha256="a" * 64,
        files=(PoolFile("/somewhere/pool.jsonl", "c" * 64, 2 + subsets),),
        subset_tokens=500,
        indicators=tuple(indicators),
        evaluation=(EvaluationSet("held_out", "/somewhere/pool.jsonl", (0, 1)),),
        reserved=(),
        left_out=(),
        runs=(*runs, *again),
        reward_model=reward,
    )


def lines_of(
    plan: Plan, effects: Mapping[str, float], *, noise: float = 0.01, seed: int = 0
) -> list[dict[str, object]]:
    """Lines of ``runs.csv``: random means, and log losses from effects per standard deviation of a mean, and noise."""
    rng = np.random.default_rng([seed, 99])
    drawn: dict[tuple[int, ...], dict[str, float]] = {}
    lines = []
    for run in plan.runs:
        if run.rows not in drawn:
            drawn[run.rows] = dict(zip(INDICATORS, rng.normal(size=len(INDICATORS)).tolist(), strict=True))
        scaled = drawn[run.rows]
        log_loss = 0.5 + sum(effect * scaled[name] for name, effect in effects.items()) + rng.normal(0, noise)
        means = {
            name: mean + spread * scaled[name]
            for name, mean, spread in zip(INDICATORS, _MEANS, _SPREADS, strict=True)
            if name in plan.indicators
        }
        lines.append({"name": run.name, "loss": float(np.exp(log_loss)), **means})
    return lines


def write_runs(folder: Path, plan: Plan, lines: Sequence[Mapping[str, object]]) -> Path:
    """Write a plan and ``runs.csv`` to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    plan.save(folder)
    with (folder / "runs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["name", "loss", *plan.indicators])
        writer.writeheader()
        writer.writerows(lines)
    return folder
