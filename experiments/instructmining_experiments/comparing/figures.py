"""What a comparison found: the loss of each method, and its difference from random rows and from the rule's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instructmining_experiments.comparing.selections import ALL, RANDOM, RULE, Selection
from instructmining_experiments.state.runs import Result

CONFIDENCE = 0.95
RESAMPLES = 10_000
_RESAMPLING = 33  # a stream of random numbers


@dataclass(frozen=True, slots=True)
class Difference:
    """A method's loss minus another's, in nats per response token, with its bootstrap interval."""

    value: float
    low: float
    high: float

    @property
    def is_lower(self) -> bool:
        """Whether the interval is below 0."""
        return self.high < 0

    @property
    def is_higher(self) -> bool:
        """Whether the interval is above 0."""
        return self.low > 0


@dataclass(frozen=True, slots=True)
class MethodFigures:
    """A method on one evaluation set."""

    evaluation_set: str
    method: str
    rows: float  # of a selection; the mean over random ones
    tokens: float
    response_tokens: float  # that were trained on, over all steps
    runs: int
    losses: tuple[float, ...]  # of each run, in nats per response token
    minus_random: Difference | None  # None for random rows themselves, and for all rows at once
    minus_rule: Difference | None  # None for the rule itself, and for all rows at once

    @property
    def loss(self) -> float:
        """Mean over the runs."""
        return float(np.mean(self.losses))

    @property
    def deviation(self) -> float | None:
        """Standard deviation between runs; None for one."""
        return float(np.std(self.losses, ddof=1)) if self.runs > 1 else None


@dataclass(frozen=True, slots=True)
class _Runs:
    """The runs of a method on one evaluation set."""

    selections: Sequence[Selection]
    results: Sequence[Result]
    sums: NDArray[np.float64]  # (runs, evaluation rows) NLL of all response tokens of a row
    tokens: NDArray[np.float64]  # (evaluation rows,)


def figures_of(
    selections: Sequence[Selection], results: Mapping[str, Result], sets: Sequence[str], *, seed: int
) -> list[MethodFigures]:
    """Return each method's figures on each evaluation set; methods without a finished run are left out.

    Intervals are percentiles over resamples of the evaluation rows, the same for both methods, and of each method's
    runs.

    Args:
        selections: of the comparison.
        results: of the finished runs, by name.
        sets: names of the evaluation sets.
        seed: of the resamples.
    """
    found = []
    for name in sets:
        methods = {
            method: runs
            for method in dict.fromkeys(selection.method for selection in selections)
            if (runs := _runs_of(method, selections, results, name)) is not None
        }
        means = _resampled({method: runs for method, runs in methods.items() if method != ALL}, seed=seed)
        found += [_figures(name, method, runs, methods, means) for method, runs in methods.items()]
    return found


def _runs_of(method: str, selections: Sequence[Selection], results: Mapping[str, Result], name: str) -> _Runs | None:
    own = [selection for selection in selections if selection.method == method and selection.name in results]
    if not own:
        return None
    found = [results[selection.name] for selection in own]
    rows = np.array([result.evaluation[name]["rows"] for result in found], dtype=np.float64)  # (runs, rows, 2)
    return _Runs(own, found, rows[:, :, 0], rows[0, :, 1])


def _resampled(methods: Mapping[str, _Runs], *, seed: int) -> dict[str, NDArray[np.float64]]:
    """Return each method's loss in each resample, (resamples,)."""
    rng = np.random.default_rng([seed, _RESAMPLING])
    found: dict[str, NDArray[np.float64]] = {}
    weights: NDArray[np.float64] | None = None
    for method, runs in methods.items():
        rows = len(runs.tokens)
        if weights is None:
            weights = rng.multinomial(rows, np.full(rows, 1 / rows), size=RESAMPLES).astype(np.float64)
        losses = (runs.sums @ weights.T) / (runs.tokens @ weights.T)  # (runs, resamples)
        drawn = rng.integers(len(losses), size=losses.shape)
        found[method] = np.take_along_axis(losses, drawn, axis=0).mean(axis=0)
    return found


def _figures(
    name: str, method: str, runs: _Runs, methods: Mapping[str, _Runs], means: Mapping[str, NDArray[np.float64]]
) -> MethodFigures:
    def minus(other: str) -> Difference | None:
        if ALL in {method, other} or method == other or other not in methods:
            return None
        tails = [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)]
        low, high = np.percentile(means[method] - means[other], tails)
        return Difference(_loss(runs) - _loss(methods[other]), float(low), float(high))

    return MethodFigures(
        evaluation_set=name,
        method=method,
        rows=float(np.mean([len(selection.rows) for selection in runs.selections])),
        tokens=float(np.mean([selection.tokens for selection in runs.selections])),
        response_tokens=float(np.mean([result.scored for result in runs.results])),
        runs=len(runs.results),
        losses=tuple((runs.sums.sum(axis=1) / runs.tokens.sum()).tolist()),
        minus_random=minus(RANDOM),
        minus_rule=minus(RULE),
    )


def _loss(runs: _Runs) -> float:
    return float((runs.sums.sum(axis=1) / runs.tokens.sum()).mean())


def sentence(figures: Sequence[MethodFigures]) -> str:
    """Return what was found on the first evaluation set, in words."""
    first = [one for one in figures if one.evaluation_set == figures[0].evaluation_set] if figures else []
    by_method = {one.method: one for one in first}
    rule, random = by_method.get(RULE), by_method.get(RANDOM)
    if rule is None or random is None or rule.minus_random is None:
        return "Nothing is known yet: the rule's rows and random rows each need a finished run."
    verdict = (
        "a better model than random ones"
        if rule.minus_random.is_lower
        else "a worse model than random ones"
        if rule.minus_random.is_higher
        else "no better model than random ones"
    )
    better = [one for one in first if one.minus_rule is not None and one.minus_rule.is_lower and one.method != RANDOM]
    beaten = [f"{one.method} ({_signed(one.minus_rule)})" for one in better if one.minus_rule is not None]
    more = f" Better than the rule's: {', '.join(beaten)}." if beaten else ""
    return (
        f"The rows that the rule selects train {verdict}: a loss of {rule.loss:.4f} on {rule.evaluation_set} against "
        f"{random.loss:.4f}, a difference of {_signed(rule.minus_random)}.{more}"
    )


def _signed(found: Difference) -> str:
    return f"{found.value:+.4f}, {100 * CONFIDENCE:g} % interval {found.low:+.4f} to {found.high:+.4f}"
