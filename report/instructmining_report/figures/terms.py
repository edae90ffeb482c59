"""What each term of a rule adds to the predictions of a set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instructmining.rules import OutOfRange, Rule
from instructmining.types import MARGIN, PREDICTION
from instructmining_report.gathering.scored_set import TOLERANCE, ScoredSet

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, slots=True)
class Term:
    """One term: coefficient times column, over the rows that have all terms."""

    column: str
    coefficient: float
    mean: float
    spread: float  # sample standard deviation (n − 1)
    quantiles: tuple[float, ...]  # 5, 25, 50, 75 and 95 %
    share: float | None  # of the variance of the prediction: covariance with it / its variance; all add up to 1


@dataclass(frozen=True, slots=True)
class TermFigures:
    """The terms of a rule in a set."""

    part: str  # what stands before the columns of a preference pair, else ""
    intercept: float
    rows: int  # rows that have all terms
    mean: float  # of the predictions
    spread: float
    terms: tuple[Term, ...]
    extrapolated: tuple[OutOfRange, ...] = ()


def terms_of(one: ScoredSet, rule: Rule) -> tuple[TermFigures, ...]:
    """Return what each term adds, for each side of pairs and for their margin; nothing where no row has all terms."""
    return tuple(figures for part in one.parts if (figures := _figures(one, rule, part)) is not None)


def contributions_of(one: ScoredSet, rule: Rule, rows: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Return what each term adds to the prediction of some rows, (rows,) by column with its part."""
    return {
        f"{part}{term}": coefficient * one.store.column(f"{part}{term}")[rows]
        for part in one.parts
        for term, coefficient in rule.terms.items()
    }


def rows_of_another_rule(one: ScoredSet, rule: Rule) -> int:
    """Return the rows whose prediction in the file is not what a rule predicts."""
    found = np.zeros(one.rows, dtype=np.bool_)
    for part in one.parts:
        if f"{part}{PREDICTION}" not in one.columns:
            continue
        total = np.full(one.rows, 0.0 if part == f"{MARGIN}." else rule.intercept)
        for term, coefficient in rule.terms.items():
            total += coefficient * one.store.column(f"{part}{term}")
        found |= np.abs(one.store.column(f"{part}{PREDICTION}") - total) > TOLERANCE * np.maximum(1, np.abs(total))
    return int(found.sum())


def _figures(one: ScoredSet, rule: Rule, part: str) -> TermFigures | None:
    intercept = 0.0 if part == f"{MARGIN}." else rule.intercept
    total = np.full(one.rows, intercept)
    for term, coefficient in rule.terms.items():
        total += coefficient * one.store.column(f"{part}{term}")
    known = np.isfinite(total)
    total = total[known]
    if not len(total):
        return None
    variance = float(total.var())
    found, means = [], {}
    for term, coefficient in rule.terms.items():
        values = one.store.column(f"{part}{term}")[known]
        means[term] = float(values.mean())
        values *= coefficient
        covariance = float(((values - values.mean()) * (total - total.mean())).mean())
        found.append(
            Term(
                column=f"{part}{term}",
                coefficient=coefficient,
                mean=float(values.mean()),
                spread=float(values.std(ddof=1)) if len(values) > 1 else 0.0,
                quantiles=tuple(np.quantile(values, _QUANTILES).tolist()),
                share=covariance / variance if variance > 0 else None,
            )
        )
    return TermFigures(
        part=part,
        intercept=intercept,
        rows=len(total),
        mean=float(total.mean()),
        spread=float(total.std(ddof=1)) if len(total) > 1 else 0.0,
        terms=tuple(found),
        extrapolated=rule.outside_range(means) if part != f"{MARGIN}." else (),
    )
