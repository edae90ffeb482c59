"""Fits a linear rule to fine-tuning runs: log evaluation loss on the indicator means of the training sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import cache
from importlib.metadata import version
from types import NoneType
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from instructmining.errors import FittingError
from instructmining.errors.arguments import check_type
from instructmining.rules import Rule
from instructmining.rules.correlation import variance_inflation
from instructmining.rules.fitting.fitted import Coefficient, Fit, Quality
from instructmining.rules.fitting.regression import (
    LeastSquares,
    Projection,
    Subset,
    bootstrapped,
    condition_number,
    least_squares,
    standardized,
)
from instructmining.rules.fitting.term_choice import (
    SEARCHES,
    Choose,
    Problem,
    choose_terms,
    figures,
    nested_r2,
)
from instructmining.rules.fitting.training_runs import RunsSource, read_runs

__all__ = ["Coefficient", "Fit", "Quality", "fit"]

CONFIDENCE = 0.95  # of all intervals
RUNS_A_TERM = 10  # with fewer, a warning
VIF_LIMIT = 10.0
CONDITION_LIMIT = 30.0
_SHOWN_SUBSETS = 10  # in the rule file


def fit(
    runs: RunsSource,
    *,
    terms: Sequence[str] | None = None,
    choose: Choose = "loo",
    bootstrap: int = 2000,
    seed: int = 0,
    rule_id: str = "fitted",
    reward_model: str | None = None,
) -> Fit:
    """Estimate a rule by ordinary least squares of log loss on the means of training sets.

    Args:
        runs: a CSV file, columns by name, or a table with the Arrow interface (pandas, Polars, Arrow), one row per
            fine-tuning run: ``loss``, the raw evaluation loss, and the indicators' means of its training set.
        terms: columns to consider; by default every indicator in the table.
        choose: which of them the rule takes. ``loo``: the subset with the smallest leave-one-out error;
            ``adjusted-r2``: the one with the highest adjusted R²; ``paper``: starts with all and drops the least
            significant one until all p-values are below 0.05; ``all``: all.
        bootstrap: resamples of the runs for the bootstrap intervals; 0 computes none.
        seed: seed of the resamples.
        rule_id: name of the rule.
        reward_model: id of the model that gave the column ``reward``; stored in the rule.

    Raises:
        InputError: the file cannot be read.
        FittingError: an argument or a run is wrong, the runs are too few, the terms are collinear, no term is left, or
            statsmodels is not installed.

    Source:
        Cao et al., arXiv 2307.06290: log loss, linear in the indicators' means. Miller, Subset Selection in Regression
        (2002): what a search over subsets does to R² and p-values.

    Example:
        >>> found = fit("examples/runs.csv", terms=["reward", "naturalness", "understandability"])  # doctest: +SKIP
        >>> found.quality.loo_r2, found.rule.terms  # doctest: +SKIP
        >>> found.rule.save("rule.json")  # doctest: +SKIP
    """
    if choose not in get_args(Choose):
        raise FittingError(f"choose is {choose!r}, wanted one of {', '.join(get_args(Choose))}")
    check_type("terms", terms, (list, tuple, NoneType), wanted="a list of columns or None", error=FittingError)
    for name, number in (("bootstrap", bootstrap), ("seed", seed)):
        check_type(name, number, int, wanted="a whole number", error=FittingError)
    check_type("rule_id", rule_id, str, wanted="a name", error=FittingError)
    if bootstrap < 0 or seed < 0:
        raise FittingError(f"bootstrap is {bootstrap} and seed {seed}, wanted neither below 0")
    table = read_runs(runs, terms)
    problem = Problem(tuple(table.means), np.column_stack(list(table.means.values())), np.log(table.losses))
    columns, search = choose_terms(problem, choose)
    names = tuple(problem.names[column] for column in columns)
    values = problem.values[:, columns]
    projection = Projection.of(values, problem.target)
    if projection is None:
        raise FittingError(f"terms {', '.join(names)}: one is a combination of the others; name fewer of them")
    result = least_squares(values, problem.target, CONFIDENCE)
    draws = bootstrapped(values, problem.target, resamples=bootstrap, seed=seed)
    intercept, *coefficients = _coefficients(result, values, names, draws)
    quality = _quality(result, values, Subset.of(names, projection, problem.target), nested_r2(problem, choose))
    found = Fit(
        rule=Rule(rule_id, intercept.value, {term.name: term.value for term in coefficients}, reward_model),
        choose=choose,
        considered=problem.names,
        intercept=intercept,
        coefficients=tuple(coefficients),
        quality=quality,
        resamples=len(draws),
        search=search,
        runs=table,
        fitted=result.fitted,
        residuals=result.residuals,
        left_out_residuals=projection.left_out,
        warnings=(),
    )
    found = replace(found, warnings=tuple(_warnings(found, problem, bootstrap)))
    return replace(found, rule=replace(found.rule, provenance=_provenance(found, bootstrap, seed)))


# Coefficients, quality and warnings


def _coefficients(
    result: LeastSquares, values: NDArray[np.float64], names: Sequence[str], draws: NDArray[np.float64]
) -> list[Coefficient]:
    tails = [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)]
    resampled = np.percentile(draws, tails, axis=0).T if len(draws) else None
    inflation = [None, *variance_inflation(standardized(values) / np.sqrt(len(values))).tolist()]
    return [
        Coefficient(
            name=name,
            value=float(result.coefficients[at]),
            standard_error=float(result.errors[at]),
            t=float(result.t[at]),
            p=float(result.p[at]),
            interval=(float(result.intervals[at, 0]), float(result.intervals[at, 1])),
            bootstrap_interval=None if resampled is None else (float(resampled[at, 0]), float(resampled[at, 1])),
            vif=inflation[at],
        )
        for at, name in enumerate(["intercept", *names])
    ]


def _quality(result: LeastSquares, values: NDArray[np.float64], chosen: Subset, nested_r2: float | None) -> Quality:
    return Quality(
        r2=result.r2,
        adjusted_r2=result.adjusted_r2,
        loo_r2=chosen.loo_r2,
        loo_error=chosen.loo_error,
        nested_loo_r2=nested_r2,
        residual_sd=float(np.sqrt(result.variance)),
        f=result.f,
        f_p=result.f_p,
        aic=result.aic,
        bic=result.bic,
        condition_number=condition_number(values),
    )


def _warnings(found: Fit, problem: Problem, bootstrap: int) -> Iterator[str]:
    runs, terms = problem.values.shape
    if runs < RUNS_A_TERM * terms:
        yield f"few runs: {runs} for {terms} terms considered, fewer than {RUNS_A_TERM} per term"
    if found.choose in SEARCHES:
        if problem.most_terms < terms:
            yield f"subsets of more than {problem.most_terms} terms were not searched: the runs are too few"
        elif not figures(problem, list(range(terms))):
            yield "some of the terms considered are exact combinations of others; subsets that contain one were skipped"
    if found.choose != "all":
        yield "the terms were chosen on these runs: standard errors, p-values and intervals are too small"
    # The mean of the other runs, as the prediction of each, has an R² slightly below 0.
    if not found.quality.loo_r2 > 1 - (runs / (runs - 1)) ** 2:
        yield f"the rule predicts left-out runs no better than their mean does: R2 {found.quality.loo_r2:.3f}"
    for run in np.flatnonzero(~np.isfinite(found.left_out_residuals)):
        yield f"{found.runs.labels[run]} alone determines a coefficient; the leave-one-out errors are not defined"
    if found.resamples < bootstrap:
        yield f"{bootstrap - found.resamples} of {bootstrap} resamples do not determine all coefficients: left out"
    yield from _warnings_of_terms(found)


def _warnings_of_terms(found: Fit) -> Iterator[str]:
    for term in found.coefficients:
        if term.vif is not None and term.vif > VIF_LIMIT:
            yield f"collinear: the variance inflation factor of {term.name} is {term.vif:.1f}, over {VIF_LIMIT:g}"
    if found.quality.condition_number > CONDITION_LIMIT:
        yield f"collinear: the condition number is {found.quality.condition_number:.1f}, over {CONDITION_LIMIT:g}"
    for term in found.coefficients:
        if term.bootstrap_interval is not None and term.bootstrap_interval[0] <= 0 <= term.bootstrap_interval[1]:
            yield f"the sign of {term.name} is not known: its bootstrap interval contains 0"
    if "reward" in found.rule.terms and found.rule.reward_model is None:
        yield "the rule has the term reward but names no reward model; give it with --reward-model"


def _provenance(found: Fit, bootstrap: int, seed: int) -> dict[str, object]:
    """Return how the rule was estimated, as JSON; it depends only on runs, settings and versions."""
    means = found.runs.means
    return {
        "predicts": "natural logarithm of the evaluation loss after fine-tuning; lower is better",
        "inputs": "means of a set, raw units",
        "runs": {**found.runs.origin, "count": len(found.runs)},
        "considered": list(found.considered),
        "choose": {"by": found.choose, "how": found.how, "subsets": len(found.search)},
        "ranges": {term: [float(means[term].min()), float(means[term].max())] for term in found.rule.terms},
        "loss_range": [float(found.runs.losses.min()), float(found.runs.losses.max())],
        "quality": asdict(found.quality),
        "coefficients": {term.name: _without_name(term) for term in (found.intercept, *found.coefficients)},
        "confidence": CONFIDENCE,
        "bootstrap": {"of": "runs, percentiles", "resamples": bootstrap, "used": found.resamples, "seed": seed},
        "subsets": [asdict(subset) for subset in found.search[:_SHOWN_SUBSETS]],
        "warnings": list(found.warnings),
        "versions": dict(_versions()),
    }


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    return tuple((name, version(name)) for name in ("instructmining", "numpy", "statsmodels"))


def _without_name(coefficient: Coefficient) -> dict[str, object]:
    return {key: value for key, value in asdict(coefficient).items() if key != "name"}
