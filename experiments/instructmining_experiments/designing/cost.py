"""What an experiment costs and can find, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instructmining_experiments.state.plan import Plan, Run

_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Cost:
    """Tokens to fine-tune on, in one pass over each subset; evaluation comes on top."""

    least_tokens: int  # of a run
    most_tokens: int
    total_tokens: int  # of all runs and replicates
    evaluation_tokens: int  # of all evaluation sets, once for each run

    def hours(self, tokens_per_second: float) -> float:
        """Return the hours of fine-tuning, at so many tokens a second."""
        return self.total_tokens / tokens_per_second / _SECONDS


@dataclass(frozen=True, slots=True)
class Spread:
    """Standard deviation of the runs' means of an indicator; None for fewer than two runs."""

    random: float | None
    tilted: float | None


def cost_of(plan: Plan, tokens: NDArray[np.float64]) -> Cost:
    """Return what a plan costs.

    Args:
        plan: with its runs.
        tokens: (rows,) of the scored pool.
    """
    of_runs = [run.tokens for run in plan.runs]
    held_out = sum(int(np.nansum(tokens[list(one.rows)])) for one in plan.evaluation)
    return Cost(min(of_runs), max(of_runs), sum(of_runs), held_out)


def spreads(runs: Sequence[Run], columns: Mapping[str, NDArray[np.float64]]) -> dict[str, Spread]:
    """Return how far the runs' means of each indicator spread; replicates are left out."""
    found = {}
    for name, values in columns.items():
        means = {
            kind: [float(values[list(run.rows)].mean()) for run in runs if run.kind == kind]
            for kind in ("random", "tilted")
        }
        found[name] = Spread(_deviation(means["random"]), _deviation(means["tilted"]))
    return found


def _deviation(means: Sequence[float]) -> float | None:
    return float(np.std(means, ddof=1)) if len(means) > 1 else None
