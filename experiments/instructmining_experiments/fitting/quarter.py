"""The held-out quarter: which runs it has, and how well rules that were fitted without it predict them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from instructmining.rules import Rule
from instructmining.rules.fitting import CONFIDENCE
from instructmining_experiments.fitting.finished import Finished
from instructmining_experiments.state.plan import Plan

BLOCK = 8  # subsets, of which one random and one tilted are held out
SHARE = 4  # one run in so many is held out
LEAST_FOR_AN_INTERVAL = 5  # with fewer held-out runs, all their differences have one sign too often by chance
RESAMPLES = 10_000
MEAN = "mean"  # name of the prediction of every run by the mean of the fitted ones
_CHOICE, _RESAMPLE = 21, 22  # streams of random numbers, apart from those of the plan's draws


def held_out_runs(plan: Plan) -> tuple[str, ...]:
    """Return the names of the runs that no rule is fitted to: a quarter, fixed by the plan alone.

    Of every eight subsets in the plan's order, one of four random and one of four tilted ones, drawn by the plan's
    seed. A last block of fewer is drawn in the same way; the place that is drawn may then have no run. So a plan with
    more runs holds out the same ones and others.
    """
    subsets = [run for run in plan.runs if run.kind != "replicate"]
    found = set()
    for number, begin in enumerate(range(0, len(subsets), BLOCK)):
        rng = np.random.default_rng([plan.seed, _CHOICE, number])
        block = subsets[begin : begin + BLOCK]
        for kind, place in zip(("random", "tilted"), rng.integers(SHARE, size=2).tolist(), strict=True):
            found |= {run.name for run in [run for run in block if run.kind == kind][place : place + 1]}
    return tuple(run.name for run in subsets if run.name in found)


@dataclass(frozen=True, slots=True)
class Score:
    """How well a rule predicts the log loss of the held-out runs."""

    rule: str  # "rule", the indicator of a rule of one term, or "mean"
    squared_error: float  # mean over the runs
    r2: float | None  # 1 − squared error / that of the mean; None where that is 0
    spearman: float | None  # of predicted and observed; None where either is the same for all runs
    saved: float  # squared error of the mean − that of the rule
    saved_interval: tuple[float, float] | None  # 95 %, percentiles over resampled runs; None for few runs

    @property
    def is_found(self) -> bool:
        """Whether the rule predicts better than the mean, beyond chance."""
        return self.saved > 0 and self.saved_interval is not None and self.saved_interval[0] > 0


def scores(fitted: Finished, held_out: Finished, rules: Mapping[str, Rule], *, seed: int) -> dict[str, Score]:
    """Compare the predictions of rules, and of the fitted runs' mean log loss, with the held-out runs.

    Args:
        fitted: the runs that the rules were fitted to.
        held_out: the others.
        rules: by name; the mean is added to them.
        seed: of the plan.
    """
    observed = held_out.log_losses
    mean = np.full(len(observed), fitted.log_losses.mean())
    predicted = {name: rule.predict(held_out.means) for name, rule in rules.items()} | {MEAN: mean}
    drawn = np.random.default_rng([seed, _RESAMPLE]).integers(len(observed), size=(RESAMPLES, len(observed)))
    return {name: _score(name, values, observed, mean, drawn) for name, values in predicted.items()}


def _score(
    name: str,
    predicted: NDArray[np.float64],
    observed: NDArray[np.float64],
    mean: NDArray[np.float64],
    drawn: NDArray[np.int64],
) -> Score:
    """Return the figures of one rule.

    Source:
        Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3: percentile intervals.
    """
    error, errors_of_mean = (predicted - observed) ** 2, (mean - observed) ** 2
    saved = errors_of_mean - error
    interval = None
    if len(observed) >= LEAST_FOR_AN_INTERVAL and name != MEAN:
        tails = [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)]
        least, most = np.percentile(saved[drawn].mean(axis=1), tails).tolist()
        interval = (least, most)
    total = float(errors_of_mean.mean())
    return Score(
        rule=name,
        squared_error=float(error.mean()),
        r2=1 - float(error.mean()) / total if total > 0 else None,
        spearman=_spearman(predicted, observed),
        saved=float(saved.mean()),
        saved_interval=interval,
    )


def _spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(spearmanr(first, second).statistic)
