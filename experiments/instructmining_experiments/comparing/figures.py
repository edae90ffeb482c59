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
    # None for a method itself, for all rows at once, and where no two runs show how far they spread.
    minus_random: Difference | None
    minus_rule: Difference | None

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
    """Return each method's loss in each resample, (resamples,); a method of unknown spread between runs is left out.

    Each resample draws evaluation rows, the same for all methods, and for each run of a method a deviation from the
    method's mean. Random rows have their own deviations. The other methods share theirs: how far runs on the same rows
    differ by their seeds is about the same for all, and a few runs of one method do not show it.
    """
    rng = np.random.default_rng([seed, _RESAMPLING])
    if not methods:
        return {}
    tokens = next(iter(methods.values())).tokens
    weights = rng.multinomial(len(tokens), np.full(len(tokens), 1 / len(tokens)), size=RESAMPLES).astype(np.float64)
    losses = {method: (runs.sums @ weights.T) / (tokens @ weights.T) for method, runs in methods.items()}
    deviations = {method: _deviations(found) for method, found in losses.items()}
    shared = np.concatenate([found for method, found in deviations.items() if method != RANDOM] or [np.empty((0, 1))])
    means = {}
    for method, found in losses.items():
        own = deviations[method] if method == RANDOM else shared
        if len(own):
            drawn = rng.integers(len(own), size=found.shape)
            means[method] = found.mean(axis=0) + np.take_along_axis(own, drawn, axis=0).mean(axis=0)
    return means


def _deviations(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each run is from the mean, (runs, resamples), with a sample's variance; of one run nothing."""
    runs = len(losses)
    if runs == 1:
        return losses[:0]
    found: NDArray[np.float64] = (losses - losses.mean(axis=0)) * np.sqrt(runs / (runs - 1))
    return found


def _figures(
    name: str, method: str, runs: _Runs, methods: Mapping[str, _Runs], means: Mapping[str, NDArray[np.float64]]
) -> MethodFigures:
    def minus(other: str) -> Difference | None:
        if method == other or method not in means or other not in means:
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
        return "Nothing is known yet: two finished runs on the rule's rows and two on random ones are the least."
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
